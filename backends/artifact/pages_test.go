package artifact

import (
	"testing"
	"unsafe"

	"github.com/lathe-ml/lathe/compiler/program"
)

// Memory of any size is zeroed, aligned and exactly as long as asked for, and
// can be given back.
func TestPages(t *testing.T) {
	for _, n := range []int{0, 1, 4096, 1<<20 - 1, 1 << 20, 2<<20 + 1, 9 << 20} {
		b, free := Pages(n)
		if len(b) != n || cap(b) != n || n > 0 && uintptr(unsafe.Pointer(&b[0]))%program.Align != 0 {
			t.Errorf("%d bytes: %d of %d at %p", n, len(b), cap(b), unsafe.SliceData(b))
		}
		for i := range b {
			if b[i] != 0 {
				t.Fatalf("%d bytes: byte %d is %d", n, i, b[i])
			}
			b[i] = 1
		}
		free()
	}
}
