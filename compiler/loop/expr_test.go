package loop_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestKey holds that expressions with equal keys have equal values, and that a
// sum's key does not depend on the order of its terms.
func TestKey(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	vars := variables(r)
	byKey := map[string]pair{}
	met := 0
	for range 4000 {
		p := grow(r, vars, r.IntN(4))
		q, seen := byKey[p.e.Key()]
		if !seen {
			byKey[p.e.Key()] = p
			continue
		}
		met++
		everywhere(vars, func(at env) {
			if p.want(at) != q.want(at) {
				t.Fatalf("%s and %s have the key %s", p.text, q.text, p.e.Key())
			}
		})
	}
	if met < 500 {
		t.Fatalf("only %d keys met", met)
	}
	for range 500 {
		a, b, c := grow(r, vars, 2), grow(r, vars, 2), grow(r, vars, 2)
		x, y := loop.Add(loop.Add(a.e, b.e), c.e), loop.Add(c.e, loop.Add(b.e, a.e))
		if x.Key() != y.Key() {
			t.Fatalf("%s + %s + %s: %s or %s", a.text, b.text, c.text, x.Key(), y.Key())
		}
	}
}

// TestKeyTellsApart holds that what differs in type, bits, buffer or function
// differs in key.
func TestKeyTellsApart(t *testing.T) {
	a := &loop.Buffer{Name: "p0", Type: tensor.F32, Len: 4}
	b := &loop.Buffer{Name: "p1", Type: tensor.F32, Len: 4}
	x, y := loop.At(a, loop.Int(0)), loop.At(b, loop.Int(0))
	all := []*loop.Expr{
		x, y, loop.At(a, loop.Int(1)),
		loop.Fn("add", x, y), loop.Fn("add", y, x), loop.Fn("max", x, y),
		loop.To(tensor.I32, x), loop.To(tensor.F64, x), loop.Reinterpret(tensor.I32, x),
		loop.Number(tensor.F32, 1, 0), loop.Number(tensor.F64, 1, 0), loop.Number(tensor.I32, 0, 1), loop.Int(1),
		loop.Number(tensor.F32, 0, 0), loop.Number(tensor.F32, math.Copysign(0, -1), 0),
		loop.Number(tensor.F32, math.NaN(), 0), loop.Number(tensor.F32, math.Inf(1), 0),
		loop.If(loop.Fn("lt", x, y), x, y), loop.If(loop.Fn("lt", x, y), y, x),
		loop.R(&loop.Reg{Name: "p0", Type: tensor.F32}), loop.V(&loop.Var{Name: "p0", N: 2}),
	}
	seen := map[string]int{}
	for i, e := range all {
		if j, dup := seen[e.Key()]; dup {
			t.Errorf("expressions %d and %d have the key %s", j, i, e.Key())
		}
		seen[e.Key()] = i
	}
}

// TestKeyOfSharedParts holds that an expression whose text would double with
// each level has a short key, in little time, and still one of its own.
func TestKeyOfSharedParts(t *testing.T) {
	deep := func(leaf string) string {
		e := loop.At(&loop.Buffer{Name: leaf, Type: tensor.F32, Len: 1}, loop.Int(0))
		for range 200 {
			e = loop.Fn("add", e, e)
		}
		return e.Key()
	}
	if k := deep("p0"); len(k) > 500 {
		t.Errorf("a key of %d bytes", len(k))
	}
	if first, again := deep("p0"), deep("p0"); first != again || first == deep("p1") {
		t.Error("long keys do not say what they stand for")
	}
}

// TestIdentities holds that only exact identities are dropped: x+0 is not one,
// because −0+0 is +0.
func TestIdentities(t *testing.T) {
	x := loop.At(&loop.Buffer{Name: "p0", Type: tensor.F32, Len: 1}, loop.Int(0))
	n := loop.At(&loop.Buffer{Name: "p1", Type: tensor.I32, Len: 1}, loop.Int(0))
	f := func(v float64) *loop.Expr { return loop.Number(tensor.F32, v, 0) }
	cond := loop.Fn("lt", x, f(2))
	for _, c := range []struct {
		name string
		got  *loop.Expr
		want string
	}{
		{"x·1", loop.Fn("mul", x, f(1)), "p0[0]"},
		{"1·x", loop.Fn("mul", f(1), x), "p0[0]"},
		{"x/1", loop.Fn("div", x, f(1)), "p0[0]"},
		{"x-0", loop.Fn("sub", x, f(0)), "p0[0]"},
		{"x-(-0)", loop.Fn("sub", x, f(math.Copysign(0, -1))), "sub(p0[0],f32:-0x0p+00)"},
		{"x+0", loop.Fn("add", x, f(0)), "add(p0[0],f32:0x0p+00)"},
		{"1/x", loop.Fn("div", f(1), x), "div(f32:0x1p+00,p0[0])"},
		{"n+0", loop.Fn("add", n, loop.Number(tensor.I32, 0, 0)), "p1[0]"},
		{"a cast to the same type", loop.To(tensor.F32, x), "p0[0]"},
		{"a cast of a constant", loop.To(tensor.I32, f(-2.75)), "i32:-2"},
		{"a rounded constant", loop.To(tensor.F32, loop.Number(tensor.F64, 0.1, 0)), "f32:0x1.99999ap-04"},
		{"a choice of equals", loop.If(cond, x, x), "p0[0]"},
		{"a decided choice", loop.If(loop.False(), x, f(3)), "f32:0x1.8p+01"},
		{"true and c", loop.And(loop.True(), cond), cond.Key()},
		{"c and false", loop.And(cond, loop.False()), "bool:0"},
	} {
		if k := c.got.Key(); k != c.want {
			t.Errorf("%s: got %s, want %s", c.name, k, c.want)
		}
	}
}

// TestWalkVisitsSharedPartsOnce holds what keeps costs linear in the size of
// the graph of an expression.
func TestWalkVisitsSharedPartsOnce(t *testing.T) {
	e := loop.At(&loop.Buffer{Name: "p0", Type: tensor.F32, Len: 1}, loop.Int(0))
	for range 60 {
		e = loop.Fn("mul", e, e)
	}
	n := 0
	e.Walk(func(*loop.Expr) { n++ })
	if n != 62 { // 60 products, one load, its index
		t.Errorf("%d visits", n)
	}
	if c := e.Cost(); c != 61 {
		t.Errorf("cost %d, want 60 products and a load", c)
	}
}

// TestKernelText holds the text form that names kernels: it says all that a
// kernel does, and nothing of the buffers that it is called with.
func TestKernelText(t *testing.T) {
	y := &loop.Buffer{Name: "p0", Type: tensor.F32, Len: 6, Out: true}
	x := &loop.Buffer{Name: "p1", Type: tensor.F32, Len: 6}
	i, j := &loop.Var{Name: "i1", N: 2}, &loop.Var{Name: "j2", N: 3}
	acc := &loop.Reg{Name: "acc3", Type: tensor.F32}
	at := loop.Add(loop.Mul(loop.V(i), 3), loop.V(j))
	k := &loop.Kernel{Family: "rows", Params: []*loop.Buffer{y, x}, Label: "not part of it", Body: []loop.Stmt{
		&loop.For{Var: i, Par: true, Body: []loop.Stmt{
			&loop.Set{Reg: acc, Val: loop.Number(tensor.F32, 0, 0), Decl: true},
			&loop.For{Var: j, Kind: loop.Vector, Body: []loop.Stmt{&loop.Accum{Reg: acc, Fn: "add", Val: loop.At(x, at)}}},
			&loop.Cond{If: loop.Less(loop.V(i), loop.Int(1)), Then: []loop.Stmt{&loop.Zero{Buf: y, From: loop.Int(0), N: 3}},
				Else: []loop.Stmt{&loop.Store{Buf: y, Index: loop.Int(3), Val: loop.R(acc)}}},
		}},
	}}
	want := strings.TrimPrefix(`
kernel rows(out p0 f32[6], p1 f32[6]) {
  parallel for i1 < 2 {
    f32 %acc3 = f32:0x0p+00
    vector j2 < 3 {
      %acc3 add= p1[add(mul(i1,3),j2)]
    }
    if lt(i1,1) {
      zero p0[0] × 3
    } else {
      p0[3] = %acc3
    }
  }
}
`, "\n")
	if got := k.String(); got != want {
		t.Errorf("got\n%s", got)
	}
	if k.ParallelLoop() == nil {
		t.Error("the outer loop is parallel")
	}
}

// TestNestDropsSingleIterations holds that loops of one iteration vanish.
func TestNestDropsSingleIterations(t *testing.T) {
	one, two := &loop.Var{Name: "a", N: 1}, &loop.Var{Name: "b", N: 2}
	s := &loop.Set{Reg: &loop.Reg{Name: "r", Type: tensor.F32}, Val: loop.Number(tensor.F32, 0, 0)}
	body := loop.Nest([]*loop.Var{one, two}, []loop.LoopKind{loop.Serial, loop.Vector}, s)
	f, ok := body[0].(*loop.For)
	if len(body) != 1 || !ok || f.Var != two || f.Kind != loop.Vector || f.Body[0] != loop.Stmt(s) {
		t.Errorf("got %#v", body)
	}
}
