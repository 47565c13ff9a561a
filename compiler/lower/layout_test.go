package lower

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// number computes an index expression without variables of its own, or with
// those in at.
func number(t *testing.T, e *loop.Expr, at map[*loop.Var]int) int {
	t.Helper()
	arg := func(i int) int { return number(t, e.Args[i], at) }
	switch {
	case e.Kind == loop.Const:
		return int(e.I)
	case e.Kind == loop.VarRef:
		return at[e.Var]
	case e.Kind == loop.Call && e.Fn == "add":
		return arg(0) + arg(1)
	case e.Kind == loop.Call && e.Fn == "mul":
		return arg(0) * arg(1)
	case e.Kind == loop.Call && e.Fn == "idiv":
		return arg(0) / arg(1)
	case e.Kind == loop.Call && e.Fn == "imod":
		return arg(0) % arg(1)
	}
	t.Fatalf("an index holds %s", e.Key())
	return 0
}

// cleared runs Zero statements and loops of them.
func cleared(t *testing.T, body []loop.Stmt, at map[*loop.Var]int, mark func(int)) {
	for _, s := range body {
		switch s := s.(type) {
		case *loop.Zero:
			from := number(t, s.From, at)
			for i := range s.N {
				mark(from + i)
			}
		case *loop.For:
			for i := range s.Var.N {
				at[s.Var] = i
				cleared(t, s.Body, at, mark)
			}
		default:
			t.Fatalf("zeroing a halo needs no %T", s)
		}
	}
}

// TestLayout holds, for random shapes, blocks and halos, that every element has
// a place of its own within Len, that zeroHalo clears all of the halo, once,
// and nothing else, and that what remains are the lanes past the last channel.
func TestLayout(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 6))
		d := func(n int) int { return r.IntN(n) }
		l := Layout{
			Shape: []int{1 + d(2), 1 + d(11), 1 + d(5), 1 + d(5)},
			L:     []int{1, 4, 8}[d(3)],
			Lo:    [2]int{d(3), d(3)}, Hi: [2]int{d(3), d(3)},
		}
		name := fmt.Sprintf("seed %d: %+v", seed, l)
		const element, halo = 1, 2
		used := make([]int, l.Len())
		idx := make([]*loop.Expr, 4)
		at := make([]int, 4)
		for i := range tensor.Numel(l.Shape) {
			for a, rest := 3, i; a >= 0; a-- {
				at[a], rest = rest%l.Shape[a], rest/l.Shape[a]
				idx[a] = loop.Int(at[a])
			}
			o := number(t, l.offset(idx), nil)
			if o < 0 || o >= len(used) || used[o] != 0 {
				t.Fatalf("%s: element %v lies at %d of %d", name, at, o, len(used))
			}
			used[o] = element
			// The formula that the kernels' authors had in mind, by hand.
			want := at[0]*l.blocks() + at[1]/l.L
			want = (want*l.rows()+at[2]+l.Lo[0])*l.cols() + at[3] + l.Lo[1]
			if want = want*l.L + at[1]%l.L; o != want {
				t.Fatalf("%s: element %v lies at %d, want %d", name, at, o, want)
			}
		}
		plane := &loop.Var{Name: "p", N: l.Shape[0] * l.blocks()}
		n := 0
		body := l.zeroHalo(&loop.Buffer{Name: "y", Type: tensor.F32, Len: l.Len()}, loop.V(plane), func(s string, k int) *loop.Var {
			n++
			return &loop.Var{Name: fmt.Sprint(s, n), N: k}
		})
		for p := range plane.N {
			cleared(t, body, map[*loop.Var]int{plane: p}, func(o int) {
				if o < 0 || o >= len(used) || used[o] != 0 {
					t.Fatalf("%s: plane %d clears %d, which is %d", name, p, o, used[o])
				}
				used[o] = halo
			})
		}
		for o, u := range used {
			col, row := o/l.L%l.cols(), o/l.L/l.cols()%l.rows()
			inside := row >= l.Lo[0] && row < l.Lo[0]+l.Shape[2] && col >= l.Lo[1] && col < l.Lo[1]+l.Shape[3]
			block := o / l.plane() % l.blocks()
			padding := inside && block*l.L+o%l.L >= l.Shape[1]
			switch {
			case inside && !padding && u != element, !inside && u != halo, padding && u != 0:
				t.Fatalf("%s: row %d, column %d, block %d is %d", name, row, col, block, u)
			}
		}
	}
}

// TestReindex holds that an index of one shape becomes that of another with
// the same position, and that axes that both have pass untouched.
func TestReindex(t *testing.T) {
	for _, c := range []struct{ from, to []int }{
		{[]int{2, 12}, []int{2, 3, 4}}, {[]int{2, 3, 4}, []int{2, 12}}, {[]int{2, 3, 4}, []int{6, 4}},
		{[]int{1, 6, 1}, []int{6}}, {[]int{6}, []int{1, 2, 1, 3}}, {[]int{4, 6}, []int{6, 4}}, {[]int{2, 6, 5}, []int{4, 3, 5}},
		{[]int{}, []int{1, 1}}, {[]int{1}, []int{}}, {[]int{3, 1, 1}, []int{3}},
	} {
		var idx []*loop.Expr
		var vars []*loop.Var
		for i, d := range c.from {
			v := &loop.Var{Name: fmt.Sprint("i", i), N: d}
			vars, idx = append(vars, v), append(idx, loop.V(v))
		}
		out := reindex(idx, c.from, c.to)
		if len(out) != len(c.to) {
			t.Errorf("%v to %v: %d axes", c.from, c.to, len(out))
			continue
		}
		for pos := range tensor.Numel(c.from) {
			at := map[*loop.Var]int{}
			for a, rest := len(c.from)-1, pos; a >= 0; a-- {
				at[vars[a]], rest = rest%c.from[a], rest/c.from[a]
			}
			got := 0
			for a, d := range c.to {
				x := number(t, out[a], at)
				if x < 0 || x >= d {
					t.Fatalf("%v to %v: axis %d is %d", c.from, c.to, a, x)
				}
				got = got*d + x
			}
			if got != pos {
				t.Fatalf("%v to %v: position %d became %d (%s)", c.from, c.to, pos, got, out[len(out)-1].Key())
			}
		}
	}
	i, j, k := &loop.Var{Name: "i", N: 2}, &loop.Var{Name: "j", N: 12}, &loop.Var{Name: "k", N: 5}
	out := reindex([]*loop.Expr{loop.V(i), loop.V(j), loop.V(k)}, []int{2, 12, 5}, []int{2, 3, 4, 5})
	for a, want := range []string{"i", "idiv(j,4)", "imod(j,4)", "k"} {
		if got := out[a].Key(); got != want {
			t.Errorf("axis %d is %s, want %s", a, got, want)
		}
	}
}
