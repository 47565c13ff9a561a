package loop_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// floorDiv and floorMod are the definitions: the quotient is rounded down, the
// remainder has the sign of the divisor.
func floorDiv(a, k int64) int64 { return (a - floorMod(a, k)) / k }

func floorMod(a, k int64) int64 { return ((a % k) + k) % k }

// env gives loop variables their values.
type env map[*loop.Var]int64

// value computes an index expression as the interpreter of kernels would,
// node by node.
func value(t *testing.T, e *loop.Expr, at env) int64 {
	t.Helper()
	arg := func(i int) int64 { return value(t, e.Args[i], at) }
	switch e.Kind {
	case loop.Const:
		return e.I
	case loop.VarRef:
		return at[e.Var]
	case loop.Call:
		switch e.Fn {
		case "add":
			return arg(0) + arg(1)
		case "mul":
			return arg(0) * arg(1)
		case "idiv":
			return floorDiv(arg(0), arg(1))
		case "imod":
			return floorMod(arg(0), arg(1))
		case "clamp":
			return min(max(arg(0), arg(1)), arg(2))
		case "lt":
			if arg(0) < arg(1) {
				return 1
			}
			return 0
		case "and":
			return arg(0) & arg(1)
		}
	}
	t.Fatalf("index arithmetic made %s", e.Key())
	return 0
}

// pair is an expression beside what it was asked to be.
type pair struct {
	e    *loop.Expr
	want func(env) int64
	text string
}

// grow makes a random index expression of some depth over the variables.
func grow(r *rand.Rand, vars []*loop.Var, depth int) pair {
	if depth == 0 {
		if r.IntN(4) == 0 {
			c := int64(r.IntN(25) - 12)
			return pair{loop.Int(int(c)), func(env) int64 { return c }, fmt.Sprint(c)}
		}
		v := vars[r.IntN(len(vars))]
		return pair{loop.V(v), func(at env) int64 { return at[v] }, v.Name}
	}
	a := grow(r, vars, depth-1)
	k := int64(1 + r.IntN(9))
	switch r.IntN(6) {
	case 0:
		b := grow(r, vars, r.IntN(depth))
		return pair{loop.Add(a.e, b.e), func(at env) int64 { return a.want(at) + b.want(at) }, "(" + a.text + "+" + b.text + ")"}
	case 1:
		b := grow(r, vars, r.IntN(depth))
		return pair{loop.Sub(a.e, b.e), func(at env) int64 { return a.want(at) - b.want(at) }, "(" + a.text + "-" + b.text + ")"}
	case 2:
		f := int64(r.IntN(9) - 4)
		return pair{loop.Mul(a.e, int(f)), func(at env) int64 { return a.want(at) * f }, fmt.Sprintf("%s*%d", a.text, f)}
	case 3:
		return pair{loop.Div(a.e, int(k)), func(at env) int64 { return floorDiv(a.want(at), k) }, fmt.Sprintf("div(%s,%d)", a.text, k)}
	case 4:
		return pair{loop.Mod(a.e, int(k)), func(at env) int64 { return floorMod(a.want(at), k) }, fmt.Sprintf("mod(%s,%d)", a.text, k)}
	}
	lo := int64(r.IntN(9) - 4)
	hi := lo + int64(r.IntN(9))
	return pair{loop.Clamp(a.e, int(lo), int(hi)), func(at env) int64 { return min(max(a.want(at), lo), hi) }, fmt.Sprintf("clamp(%s,%d,%d)", a.text, lo, hi)}
}

// everywhere calls f with all values of the variables.
func everywhere(vars []*loop.Var, f func(env)) {
	at := env{}
	var fix func(i int)
	fix = func(i int) {
		if i == len(vars) {
			f(at)
			return
		}
		for x := range vars[i].N {
			at[vars[i]] = int64(x)
			fix(i + 1)
		}
	}
	fix(0)
}

func variables(r *rand.Rand) []*loop.Var {
	sizes := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 12}
	var vars []*loop.Var
	for i := range 3 {
		vars = append(vars, &loop.Var{Name: fmt.Sprintf("v%d", i), N: sizes[r.IntN(len(sizes))]})
	}
	return vars
}

// TestArithmetic holds that what simplification leaves has the value that was
// asked for, that Range bounds it, and that Less decides only what is so.
func TestArithmetic(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		vars := variables(r)
		p, q := grow(r, vars, 1+r.IntN(5)), grow(r, vars, r.IntN(3))
		lo, hi := loop.Range(p.e)
		less := loop.Less(p.e, q.e)
		inside := loop.Within(p.e, -3, 4)
		everywhere(vars, func(at env) {
			x, y := p.want(at), q.want(at)
			if got := value(t, p.e, at); got != x {
				t.Fatalf("seed %d: %s became %s: %d instead of %d", seed, p.text, p.e.Key(), got, x)
			}
			if x < lo || x > hi {
				t.Fatalf("seed %d: %s = %d outside its range [%d,%d]", seed, p.text, x, lo, hi)
			}
			if got := value(t, less, at) == 1; got != (x < y) {
				t.Fatalf("seed %d: %s < %s: %v for %d and %d", seed, p.text, q.text, got, x, y)
			}
			if got := value(t, inside, at) == 1; got != (x >= -3 && x < 4) {
				t.Fatalf("seed %d: %s within [-3,4): %v for %d", seed, p.text, got, x)
			}
		})
	}
}

// TestCoef holds that a coefficient is by how much the value grows with its
// variable.
func TestCoef(t *testing.T) {
	found := 0
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 2))
		vars := variables(r)
		p := grow(r, vars, 1+r.IntN(4))
		v := vars[0]
		k, ok := loop.Coef(p.e, v)
		if !ok || v.N == 1 {
			continue
		}
		found++
		everywhere(vars, func(at env) {
			if at[v]+1 < int64(v.N) {
				next := env{v: at[v] + 1, vars[1]: at[vars[1]], vars[2]: at[vars[2]]}
				if d := p.want(next) - p.want(at); d != k {
					t.Fatalf("seed %d: %s (%s) grows by %d with %s, Coef says %d", seed, p.text, p.e.Key(), d, v.Name, k)
				}
			}
		})
	}
	if found < 500 {
		t.Fatalf("only %d expressions were affine", found)
	}
}

// shapes of the same number of elements, by factorising in random order.
func factors(r *rand.Rand, n int) []int {
	out := []int{}
	for n > 1 {
		var d []int
		for k := 2; k <= n; k++ {
			if n%k == 0 {
				d = append(d, k)
			}
		}
		k := d[r.IntN(len(d))]
		out, n = append(out, k), n/k
	}
	if r.IntN(3) == 0 {
		out = append(out, 1)
	}
	return out
}

// TestUnflattenInvertsFlatten holds that an index, made flat and split again,
// is the index, without a quotient left; and that splitting for another shape
// keeps the position, as an expression.
func TestUnflattenInvertsFlatten(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 3))
		n := []int{1, 6, 12, 24, 36, 60}[r.IntN(6)]
		shape, other := factors(r, n), factors(r, n)
		var vars []*loop.Var
		var idx []*loop.Expr
		for i, d := range shape {
			vars = append(vars, &loop.Var{Name: fmt.Sprintf("i%d", i), N: d})
			idx = append(idx, loop.V(vars[i]))
		}
		flat := loop.Flatten(idx, shape)
		for i, e := range loop.Unflatten(flat, shape) {
			if e.Key() != idx[i].Key() {
				t.Fatalf("seed %d: axis %d of %v came back as %s", seed, i, shape, e.Key())
			}
		}
		back := loop.Flatten(loop.Unflatten(flat, other), other)
		if back.Key() != flat.Key() {
			t.Fatalf("seed %d: %v through %v: %s became %s", seed, shape, other, flat.Key(), back.Key())
		}
		everywhere(vars, func(at env) {
			if x, y := value(t, flat, at), value(t, back, at); x != y {
				t.Fatalf("seed %d: %v through %v: %d became %d (%s)", seed, shape, other, x, y, back.Key())
			}
		})
	}
}

// TestSimplifies pins the forms on which the speed of kernels rests.
func TestSimplifies(t *testing.T) {
	i, j, c := &loop.Var{Name: "i", N: 8}, &loop.Var{Name: "j", N: 4}, &loop.Var{Name: "c", N: 30}
	one := &loop.Var{Name: "one", N: 1}
	vi, vj, vc := loop.V(i), loop.V(j), loop.V(c)
	ij := loop.Add(loop.Mul(vi, 4), vj)
	for _, x := range []struct {
		name string
		got  *loop.Expr
		want string
	}{
		{"a loop of one iteration is 0", loop.V(one), "0"},
		{"equal terms meet", loop.Sub(loop.Add(vi, vj), vi), "j"},
		{"constants meet", loop.Add(loop.Add(vi, loop.Int(3)), loop.Int(-3)), "i"},
		{"(4i+j)/4 = i", loop.Div(ij, 4), "i"},
		{"(4i+j) mod 4 = j", loop.Mod(ij, 4), "j"},
		{"(4i+j)/2 keeps what 2 divides", loop.Div(ij, 2), "add(mul(i,2),idiv(j,2))"},
		{"a common factor goes", loop.Div(loop.Add(loop.Mul(vc, 6), loop.Int(4)), 8), "idiv(add(mul(c,3),2),4)"},
		{"quotient and remainder join", loop.Add(loop.Mul(loop.Div(vc, 7), 7), loop.Mod(vc, 7)), "c"},
		{"also those of a quotient", loop.Add(loop.Mul(loop.Div(vc, 6), 3), loop.Mod(loop.Div(vc, 2), 3)), "idiv(c,2)"},
		{"quotients of quotients", loop.Div(loop.Div(vc, 2), 3), "idiv(c,6)"},
		{"a bound that holds goes", loop.Clamp(vi, 0, 7), "i"},
		{"a bound that does not hold stays", loop.Clamp(vi, 0, 6), "clamp(i,0,6)"},
		{"i < 8 is true", loop.Less(vi, loop.Int(8)), "bool:1"},
		{"i < 0 is false", loop.Less(vi, loop.Int(0)), "bool:0"},
		{"i < 7 is open", loop.Less(vi, loop.Int(7)), "lt(i,7)"},
	} {
		if k := x.got.Key(); k != x.want {
			t.Errorf("%s: got %s, want %s", x.name, k, x.want)
		}
	}
}

// TestUnbounded holds that a position read from data has no range, so that
// nothing about it is taken for decided.
func TestUnbounded(t *testing.T) {
	b := &loop.Buffer{Name: "p0", Type: tensor.I64, Len: 4}
	e := loop.Add(loop.At(b, loop.Int(0)), loop.Int(1))
	if lo, hi := loop.Range(e); lo > -1<<40 || hi < 1<<40 {
		t.Errorf("range [%d,%d]", lo, hi)
	}
	if k := loop.Less(e, loop.Int(1<<40)).Kind; k == loop.Const {
		t.Error("an order of unknown numbers was decided")
	}
	if lo, hi := loop.Range(loop.Clamp(e, 2, 5)); lo != 2 || hi != 5 {
		t.Errorf("clamped: range [%d,%d]", lo, hi)
	}
	if lo, hi := loop.Range(loop.Mod(e, 5)); lo != 0 || hi != 4 {
		t.Errorf("remainder: range [%d,%d]", lo, hi)
	}
}
