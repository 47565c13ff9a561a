package torch

import (
	"testing"

	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/fixture"
)

func openFile(t testing.TB, s weights.Store, name string) *File {
	t.Helper()
	f, c, err := OpenIn(s, name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return f
}

// sum is the sha256 of the packed bytes of a tensor.
func sum(t testing.TB, x *Tensor) string {
	t.Helper()
	w := x.Ref("")
	return fixture.Sum(t, x.Reader(), w.Bytes())
}
