//go:build !unix

package atomicfile

// Exclusive runs f; other processes are not kept out.
func Exclusive(_ string, f func() error) error { return f() }
