// Package rules holds the tests of the tree as a whole: who may import whom,
// who owns which library, what a file may hold. It has no code of its own and
// knows nothing but Go source.
package rules
