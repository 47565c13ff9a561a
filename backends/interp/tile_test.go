package interp

import (
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func buffer(name string, n int, out bool) *loop.Buffer {
	return &loop.Buffer{Name: name, Type: tensor.F32, Len: n, Out: out}
}

// runKernel runs one kernel on inputs; the last parameter is the output.
func runKernel(k *loop.Kernel, in ...[]float32) ([]float32, error) {
	p := &program.Program{Kernels: []*loop.Kernel{k}}
	var args []*program.Buf
	var ts []*tensor.Tensor
	for i, v := range in {
		b := &program.Buf{Name: k.Params[i].Name, Where: program.Input, Type: k.Params[i].Type, Len: len(v), Index: i}
		args = append(args, b)
		p.Inputs = append(p.Inputs, program.Port{Name: b.Name, Type: b.Type, Shape: []int{len(v)}, Buf: b})
		ts = append(ts, tensor.Convert(tensor.Of(v, len(v)), b.Type))
	}
	q := k.Params[len(in)]
	b := &program.Buf{Name: q.Name, Where: program.Output, Type: q.Type, Len: q.Len}
	p.Outputs = []program.Port{{Name: q.Name, Type: q.Type, Shape: []int{q.Len}, Buf: b}}
	p.Steps = []program.Step{{Kernel: k, Args: append(args, b)}}
	s, err := New(p, Options{})
	if err != nil {
		return nil, err
	}
	out := tensor.New(q.Type, q.Len)
	err = s.Run(ts, []*tensor.Tensor{out})
	return tensor.As[float32](tensor.Convert(out, tensor.F32)), err
}

// TestTile: two vectors of two lanes for two points, two reduction loops, a
// bias, a sum and a bound, against values worked out by hand.
//
//	W = 1 2 | 3 4 | 5 6 | 7 8     step k: lanes o0, then o1, so WO = 2, WStep 4
//	X = 1 10 100 1000             point p reads X[p + 2k]
//	o0p0 = (1,2)·1 + (5,6)·100 = (501, 602)      + bias (1, 2) = (502, 604)
//	o0p1 = (1,2)·10 + (5,6)·1000 = (5010, 6020)              → (5011, 6022)
//	o1p0 = (3,4)·1 + (7,8)·100 = (703, 804)      + bias (3, 4) = (706, 808)
//	o1p1 = (3,4)·10 + (7,8)·1000 = (7030, 8040)              → (7033, 8044)
func TestTile(t *testing.T) {
	x, w, b, a, s := buffer("x", 4, false), buffer("w", 8, false), buffer("b", 4, false), buffer("a", 8, false), buffer("s", 8, true)
	tile := &loop.Tile{OB: 2, P: 2, L: 2, X: x, W: w, B: b, S: s, XAt: loop.Int(0), WAt: loop.Int(0), BAt: loop.Int(0), SAt: loop.Int(0),
		XP: []int{0, 1}, WO: 2, SO: 4, SP: []int{0, 2}, Red: []loop.Red{{N: 1, XStep: 50, WStep: 50}, {N: 2, XStep: 2, WStep: 4}}}
	k := &loop.Kernel{Family: "tile", Params: []*loop.Buffer{x, w, b, a, s}, Body: []loop.Stmt{tile}}
	in := [][]float32{{1, 10, 100, 1000}, {1, 2, 3, 4, 5, 6, 7, 8}, {1, 2, 3, 4}, {-500, 0, 0, 0, -1000, 0, 0, 1}}
	check := func(what string, want []float32) {
		t.Helper()
		got, err := runKernel(k, in...)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: %v, want %v", what, got, want)
				return
			}
		}
	}
	check("sums", []float32{502, 604, 5011, 6022, 706, 808, 7033, 8044})
	tile.Add, tile.AddAt, tile.AO, tile.AP = a, loop.Int(0), 4, []int{0, 2}
	check("added", []float32{2, 604, 5011, 6022, -294, 808, 7033, 8045})
	tile.Act = "relu"
	check("relu", []float32{2, 604, 5011, 6022, 0, 808, 7033, 8045})
	tile.Act, tile.Lo, tile.Hi = "clip", 10, 6000
	check("clip", []float32{10, 604, 5011, 6000, 10, 808, 6000, 6000})
	tile.Red[1].N = 3 // X[4] is outside
	if _, err := runKernel(k, in...); err == nil || !strings.Contains(err.Error(), "load w[8], which has 8 elements") {
		t.Errorf("a tile that reads outside its weights: %v", err)
	}
}

// TestTileLanes: a depthwise tile. X is a vector that moves with the lanes:
// s[p][l] = Σ_k W[2k + l]·X[p + 2k + l]
//
//	p0: l0 = 1·1 + 3·3 = 10, l1 = 2·2 + 4·4 = 20
//	p1: l0 = 1·2 + 3·4 = 14, l1 = 2·3 + 4·5 = 26
func TestTileLanes(t *testing.T) {
	x, w, s := buffer("x", 5, false), buffer("w", 4, false), buffer("s", 4, true)
	tile := &loop.Tile{OB: 1, P: 2, L: 2, X: x, W: w, S: s, XAt: loop.Int(0), WAt: loop.Int(0), SAt: loop.Int(0),
		XP: []int{0, 1}, SP: []int{0, 2}, Red: []loop.Red{{N: 2, XStep: 2, WStep: 2}}, Lanes: true}
	k := &loop.Kernel{Family: "tile", Params: []*loop.Buffer{x, w, s}, Body: []loop.Stmt{tile}}
	got, err := runKernel(k, []float32{1, 2, 3, 4, 5}, []float32{1, 2, 3, 4})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float32{10, 20, 14, 26} {
		if got[i] != want {
			t.Errorf("element %d is %v, want %v", i, got[i], want)
		}
	}
}

// TestFindsWrongKernels holds that what the IR forbids is an error, not a
// number.
func TestFindsWrongKernels(t *testing.T) {
	x, y := buffer("x", 4, false), buffer("y", 4, true)
	v := &loop.Var{Name: "i", N: 4}
	r := &loop.Reg{Name: "r", Type: tensor.F32}
	over := func(s loop.Stmt) []loop.Stmt { return []loop.Stmt{&loop.For{Var: v, Body: []loop.Stmt{s}}} }
	for _, c := range []struct {
		name string
		body []loop.Stmt
		want string
	}{
		{"load past the end", over(&loop.Store{Buf: y, Index: loop.V(v), Val: loop.At(x, loop.Add(loop.V(v), loop.Int(1)))}), "load x[4], which has 4 elements"},
		{"store before the beginning", over(&loop.Store{Buf: y, Index: loop.Sub(loop.V(v), loop.Int(2)), Val: loop.At(x, loop.V(v))}), "store y[-2], which has 4 elements"},
		{"store to an input", over(&loop.Store{Buf: x, Index: loop.V(v), Val: loop.Number(tensor.F32, 1, 0)}), "store to x, which is not an output"},
		{"unset register", over(&loop.Store{Buf: y, Index: loop.V(v), Val: loop.R(r)}), "register r is read before it is set"},
		{"wrong type", over(&loop.Store{Buf: y, Index: loop.V(v), Val: loop.V(v)}), "of type f32 is given i64"},
		{"variable outside its loop", []loop.Stmt{&loop.Store{Buf: y, Index: loop.V(v), Val: loop.Number(tensor.F32, 1, 0)}}, "loop variable i is read outside its loop"},
	} {
		_, err := runKernel(&loop.Kernel{Family: "wrong", Params: []*loop.Buffer{x, y}, Body: c.body}, []float32{1, 2, 3, 4})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	// The untaken side of a choice may be outside.
	guarded := loop.If(loop.Less(loop.V(v), loop.Int(3)), loop.At(x, loop.Add(loop.V(v), loop.Int(1))), loop.Number(tensor.F32, 9, 0))
	got, err := runKernel(&loop.Kernel{Family: "guarded", Params: []*loop.Buffer{x, y}, Body: over(&loop.Store{Buf: y, Index: loop.V(v), Val: guarded})}, []float32{1, 2, 3, 4})
	if err != nil || got[0] != 2 || got[3] != 9 {
		t.Errorf("guarded load: %v, %v", got, err)
	}
}

// TestTileTerms: a step that sums three terms, as products of values in two
// parts do: s = Σ_k w[k]·x[4+k] + w[k]·x[k] + w[2+k]·x[k]
//
//	k=0: 2·50 + 2·1 + 3·1 = 105;  k=1: 5·60 + 5·10 + 7·10 = 420
func TestTileTerms(t *testing.T) {
	x, w, s := buffer("x", 6, false), buffer("w", 4, false), buffer("s", 1, true)
	tile := &loop.Tile{OB: 1, P: 1, L: 1, X: x, W: w, S: s, XAt: loop.Int(0), WAt: loop.Int(0), SAt: loop.Int(0),
		XP: []int{0}, SP: []int{0}, Red: []loop.Red{{N: 2, XStep: 1, WStep: 1}}, Terms: [][2]int{{4, 0}, {0, 0}, {0, 2}}}
	k := &loop.Kernel{Family: "tile", Params: []*loop.Buffer{x, w, s}, Body: []loop.Stmt{tile}}
	got, err := runKernel(k, []float32{1, 10, -1, -1, 50, 60}, []float32{2, 5, 3, 7})
	if err != nil || got[0] != 525 {
		t.Errorf("%v, %v, want 525", got, err)
	}
	tile.Matrix = true
	if _, err := runKernel(k, make([]float32, 6), make([]float32, 4)); err == nil || !strings.Contains(err.Error(), "a matrix tile of f32·f32") {
		t.Errorf("a tile that no matrix unit can take: %v", err)
	}
}

// TestTileTail: of the second of two vectors of two lanes only one is stored.
//
//	o0 = (1,2)·3 = (3,6), o1 = (5,·)·3 = (15,·); the last element stays what it was, NaN
func TestTileTail(t *testing.T) {
	x, w, s := buffer("x", 1, false), buffer("w", 4, false), buffer("s", 4, true)
	tile := &loop.Tile{OB: 2, P: 1, L: 2, X: x, W: w, S: s, XAt: loop.Int(0), WAt: loop.Int(0), SAt: loop.Int(0),
		XP: []int{0}, WO: 2, SO: 2, SP: []int{0}, Red: []loop.Red{{N: 1}}, Tail: 1}
	k := &loop.Kernel{Family: "tile", Params: []*loop.Buffer{x, w, s}, Body: []loop.Stmt{tile}}
	got, err := runKernel(k, []float32{3}, []float32{1, 2, 5, 7})
	if want := []float32{3, 6, 15}; err != nil || !slices.Equal(got[:3], want) || got[3] == got[3] {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	tile.Tail = 2
	if _, err := runKernel(k, []float32{3}, []float32{1, 2, 5, 7}); err == nil || !strings.Contains(err.Error(), "last vector of 2 lanes has 2") {
		t.Errorf("a tail that is none: %v", err)
	}
}

// TestTileParts: a second nest of sums, with fewer steps, at its own offsets.
//
//	s[l] = W[0+l]·X[0] + W[2+l]·X[1] + W[4+l]·X[3] = (1+2·3+100·5, 2+2·4+100·6)
func TestTileParts(t *testing.T) {
	x, w, s := buffer("x", 4, false), buffer("w", 6, false), buffer("s", 2, true)
	tile := &loop.Tile{OB: 1, P: 1, L: 2, X: x, W: w, S: s, XAt: loop.Int(0), WAt: loop.Int(0), SAt: loop.Int(0), XP: []int{0}, SP: []int{0},
		Red: []loop.Red{{N: 2, XStep: 1, WStep: 2}}, More: []loop.Part{{X: 3, W: 4, Red: []loop.Red{{N: 1, XStep: 1, WStep: 2}}}}}
	k := &loop.Kernel{Family: "tile", Params: []*loop.Buffer{x, w, s}, Body: []loop.Stmt{tile}}
	got, err := runKernel(k, []float32{1, 2, 10, 100}, []float32{1, 2, 3, 4, 5, 6})
	if err != nil {
		t.Fatal(err)
	}
	if got[0] != 507 || got[1] != 610 {
		t.Errorf("sums %v, want [507 610]", got)
	}
	if n := tile.Steps(); n != 3 {
		t.Errorf("%d steps, want 3", n)
	}
}

// TestTileAcross: a depthwise tile of bytes. A group is four pixels of two
// channels: s[p][l] = b[l] + Σ_g W[4l + g]·X[2p + 2g + l]
//
//	p0: l0 = 7 + 1·1 + 2·3 − 3·5 + 4·7 = 27, l1 = 9 − 1·2 + 5·4 + 6·6 + 7·8 = 119
//	p1: l0 = 7 + 1·3 + 2·5 − 3·7 + 4·9 = 35, l1 = 9 − 1·4 + 5·6 + 6·8 + 7·10 = 153
func TestTileAcross(t *testing.T) {
	typed := func(name string, d tensor.DType, n int, out bool) *loop.Buffer {
		b := buffer(name, n, out)
		b.Type = d
		return b
	}
	x, w, bias, s := typed("x", tensor.U8, 10, false), typed("w", tensor.I8, 8, false), typed("b", tensor.I32, 2, false), typed("s", tensor.I32, 4, true)
	tile := &loop.Tile{Kind: loop.TileU8S8, OB: 1, P: 2, L: 2, X: x, W: w, B: bias, S: s, XAt: loop.Int(0), WAt: loop.Int(0), BAt: loop.Int(0), SAt: loop.Int(0),
		XP: []int{0, 2}, SP: []int{0, 2}, Lanes: true, Across: true}
	k := &loop.Kernel{Family: "tile", Params: []*loop.Buffer{x, w, bias, s}, Body: []loop.Stmt{tile}}
	got, err := runKernel(k, []float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, []float32{1, 2, -3, 4, -1, 5, 6, 7}, []float32{7, 9})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float32{27, 119, 35, 153} {
		if got[i] != want {
			t.Errorf("element %d is %v, want %v", i, got[i], want)
		}
	}
}
