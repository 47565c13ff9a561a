package portable

import (
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/backends/interp"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestTileTerms holds that tiles whose steps have several terms, of vectors
// that are no multiple of four too, mean what the interpreter says, bit for
// bit; and that a file keeps them.
func TestTileTerms(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for _, lanes := range []int{1, 3, 4, 8, 10} {
		param := func(name string, n int, out bool) *loop.Buffer {
			return &loop.Buffer{Name: name, Type: tensor.F32, Len: n, Out: out}
		}
		x, w, s := param("x", 200, false), param("w", 1000, false), param("s", 2*3*lanes, true)
		tile := &loop.Tile{OB: 2, P: 3, L: lanes, X: x, W: w, S: s, XAt: loop.Int(0), WAt: loop.Int(0), SAt: loop.Int(0), XP: []int{0, 7, 30}, WO: 400,
			SO: 3 * lanes, SP: []int{0, lanes, 2 * lanes}, Red: []loop.Red{{N: 3, XStep: 9, WStep: 3 * lanes}, {N: 2, XStep: 1, WStep: lanes}},
			Terms: [][2]int{{100, 0}, {0, 0}, {0, 200}}}
		k := &loop.Kernel{Family: "tile", Params: []*loop.Buffer{x, w, s}, Body: []loop.Stmt{tile}}
		p := &program.Program{Kernels: []*loop.Kernel{k}}
		var in []*tensor.Tensor
		var args []*program.Buf
		for i, q := range k.Params[:2] {
			b := &program.Buf{Name: q.Name, Where: program.Input, Type: tensor.F32, Len: q.Len, Index: i}
			v := tensor.New(tensor.F32, q.Len)
			for j := range v.Len() {
				v.SetFloat(j, r.NormFloat64())
			}
			in, args = append(in, v), append(args, b)
			p.Inputs = append(p.Inputs, program.Port{Name: b.Name, Type: b.Type, Shape: []int{q.Len}, Buf: b})
		}
		b := &program.Buf{Name: s.Name, Where: program.Output, Type: tensor.F32, Len: s.Len}
		p.Outputs = []program.Port{{Name: s.Name, Type: tensor.F32, Shape: []int{s.Len}, Buf: b}}
		p.Steps = []program.Step{{Kernel: k, Args: append(args, b)}}
		want := tensor.New(tensor.F32, s.Len)
		ref, err := interp.New(p, interp.Options{})
		if err == nil {
			err = ref.Run(in, []*tensor.Tensor{want})
		}
		if err != nil {
			t.Fatal(err)
		}
		run := func(what string, f func() (backend.Session, error)) {
			got := tensor.New(tensor.F32, s.Len)
			session, err := f()
			if err == nil {
				err = session.Run(in, []*tensor.Tensor{got})
			}
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			for i := range got.Len() {
				if got.Float(i) != want.Float(i) {
					t.Fatalf("%s, %d lanes, element %d: %v, want %v", what, lanes, i, got.Float(i), want.Float(i))
				}
			}
		}
		run("direct", func() (backend.Session, error) { return Direct(p, 1) })
		run("from a file", func() (backend.Session, error) {
			text, err := Encode(p)
			if err != nil {
				return nil, err
			}
			q, err := Decode(text)
			if err != nil {
				return nil, err
			}
			return Direct(q, 1)
		})
	}
}
