package program_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// call makes a step that uses the buffers.
func call(args ...*program.Buf) program.Step {
	k := &loop.Kernel{Family: "pointwise"}
	for i, a := range args {
		k.Params = append(k.Params, &loop.Buffer{Name: fmt.Sprintf("p%d", i), Type: a.Type, Len: a.Len, Out: i == 0})
	}
	return program.Step{Kernel: k, Args: args, Label: "v"}
}

func arena(name string, bytes int) *program.Buf {
	return &program.Buf{Name: name, Where: program.Arena, Type: tensor.U8, Len: bytes}
}

// uses gives the first and last step of each arena buffer.
func uses(p *program.Program) (bufs []*program.Buf, first, last map[*program.Buf]int) {
	first, last = map[*program.Buf]int{}, map[*program.Buf]int{}
	for i, s := range p.Steps {
		for _, a := range s.Args {
			if a.Where != program.Arena {
				continue
			}
			if _, seen := first[a]; !seen {
				first[a] = i
				bufs = append(bufs, a)
			}
			last[a] = i
		}
	}
	return bufs, first, last
}

// TestPlanKeepsLiveBuffersApart holds, for random lifetimes and sizes, that no
// two buffers of one moment share a byte, each with a cache line behind it,
// that all lie aligned within the workspace, and that memory is reused: never
// more than the sum, never less than what one moment needs.
func TestPlanKeepsLiveBuffersApart(t *testing.T) {
	saved := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 4))
		p := &program.Program{}
		steps := 1 + r.IntN(30)
		life := make([][]*program.Buf, steps)
		for i := range 1 + r.IntN(25) {
			b := arena(fmt.Sprint(i), r.IntN(5000))
			from := r.IntN(steps)
			to := min(steps-1, from+r.IntN(6))
			life[from] = append(life[from], b)
			life[to] = append(life[to], b) // in between it need not be named
		}
		in := &program.Buf{Name: "x", Where: program.Input, Type: tensor.U8, Len: 64}
		for _, l := range life {
			p.Steps = append(p.Steps, call(append(l, in)...))
		}
		p.Plan()
		bufs, first, last := uses(p)
		sum, moment := 0, 0
		for _, b := range bufs {
			sum += program.Pad(b.Size())
			if b.Offset < 0 || b.Offset%program.Align != 0 || b.Offset+b.Size()+program.Align > p.Workspace {
				t.Fatalf("seed %d: %d bytes at %d of %d", seed, b.Size(), b.Offset, p.Workspace)
			}
			for _, c := range bufs {
				together := b != c && first[b] <= last[c] && first[c] <= last[b]
				if together && b.Offset < c.Offset+c.Size()+program.Align && c.Offset < b.Offset+b.Size()+program.Align {
					t.Fatalf("seed %d: %d+%d and %d+%d are live together", seed, b.Offset, b.Size(), c.Offset, c.Size())
				}
			}
		}
		for i := range p.Steps {
			now := 0
			for _, b := range bufs {
				if first[b] <= i && i <= last[b] {
					now += program.Pad(b.Size())
				}
			}
			moment = max(moment, now)
		}
		if p.Workspace > sum || p.Workspace < moment {
			t.Fatalf("seed %d: workspace %d, sum %d, most at one moment %d", seed, p.Workspace, sum, moment)
		}
		if p.Workspace < sum {
			saved++
		}
	}
	if saved < 200 {
		t.Errorf("memory was reused in %d of 400 programs only", saved)
	}
}

// lowestGaps is the plan stated plainly: largest first, each at the lowest
// offset at which it meets no buffer of one of its steps.
func lowestGaps(p *program.Program) map[*program.Buf]int {
	bufs, first, last := uses(p)
	slices.SortStableFunc(bufs, func(a, b *program.Buf) int { return b.Size() - a.Size() })
	at := map[*program.Buf]int{}
	for i, b := range bufs {
		offset := 0
		for moved := true; moved; {
			moved = false
			for _, c := range bufs[:i] {
				together := first[b] <= last[c] && first[c] <= last[b]
				if together && offset < at[c]+program.Pad(c.Size()) && at[c] < offset+program.Pad(b.Size()) {
					offset, moved = at[c]+program.Pad(c.Size()), true
				}
			}
		}
		at[b] = offset
	}
	return at
}

// TestPlanIsTheLowestGap holds that buffers lie where the plain statement of
// the plan puts them, for many buffers with short and long lives.
func TestPlanIsTheLowestGap(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 5))
		steps := 1 + r.IntN(80)
		args := make([][]*program.Buf, steps)
		for i := range 1 + r.IntN(120) {
			b := arena(fmt.Sprint(i), 1+r.IntN(1<<r.IntN(14)))
			from := r.IntN(steps)
			to := from + r.IntN(min(steps-from, 1<<r.IntN(8)))
			args[from], args[to] = append(args[from], b), append(args[to], b)
		}
		p := &program.Program{}
		for _, a := range args {
			p.Steps = append(p.Steps, call(a...))
		}
		want := lowestGaps(p)
		p.Plan()
		for b, at := range want {
			if b.Offset != at {
				t.Fatalf("seed %d: buffer %s of %d bytes at %d, the lowest gap is at %d", seed, b.Name, b.Size(), b.Offset, at)
			}
		}
	}
}

// TestPlanOfManyLiveBuffers holds that thousands of buffers of one moment lie
// side by side, and that their memory is used again by the next ones.
func TestPlanOfManyLiveBuffers(t *testing.T) {
	const n = 20000
	p := &program.Program{}
	sum := 0
	for range 2 {
		var live []*program.Buf
		for i := range n {
			live = append(live, arena(fmt.Sprint(i), 64*(1+i%7)))
			p.Steps = append(p.Steps, call(live[i]))
		}
		p.Steps = append(p.Steps, call(live...))
	}
	for i := range n {
		sum += program.Pad(64 * (1 + i%7))
	}
	p.Plan()
	if p.Workspace != sum {
		t.Errorf("workspace %d, want %d", p.Workspace, sum)
	}
}

// TestPlanOfParts holds that a part lies within its whole, which lives as long
// as any part does.
func TestPlanOfParts(t *testing.T) {
	whole := arena("whole", 1024)
	left, right := arena("left", 512), arena("right", 512)
	left.Of, right.Of, right.From = whole, whole, 512
	mid := arena("mid", 256)
	mid.Of, mid.From = right, 128
	other := arena("other", 700)
	p := &program.Program{Steps: []program.Step{call(left), call(other), call(mid, other), call(arena("end", 64), left)}}
	p.Plan()
	if left.Offset != whole.Offset || mid.Offset != whole.Offset+640 {
		t.Errorf("parts at %d and %d of a whole at %d", left.Offset, mid.Offset, whole.Offset)
	}
	if other.Offset < whole.Offset+program.Pad(1024) && whole.Offset < other.Offset+program.Pad(700) {
		t.Errorf("%d bytes at %d lie on a whole at %d that is still read", 700, other.Offset, whole.Offset)
	}
}

// TestPlanOfAChain holds that a chain of layers needs two buffers, however
// long it is: each is read while the next is written.
func TestPlanOfAChain(t *testing.T) {
	p := &program.Program{}
	prev := arena("0", 4096)
	for i := range 50 {
		next := arena(fmt.Sprint(i+1), 4096)
		p.Steps = append(p.Steps, call(next, prev))
		prev = next
	}
	p.Plan()
	if want := 2 * program.Pad(4096); p.Workspace != want {
		t.Errorf("workspace %d, want %d", p.Workspace, want)
	}
}

// TestPlanOfWeights holds that constants lie one after the other, aligned, in
// the order in which kernels read them.
func TestPlanOfWeights(t *testing.T) {
	p := &program.Program{}
	for _, n := range []int{1, 64, 65, 1000} {
		p.Consts = append(p.Consts, &program.Constant{Buf: &program.Buf{Where: program.Const, Type: tensor.F32, Len: n}})
	}
	p.Plan()
	// Bytes 4, 256, 260, 4000; rounded up to 64, and 64 more.
	want := []int{0, 128, 448, 832}
	for i, c := range p.Consts {
		if c.Buf.Offset != want[i] {
			t.Errorf("constant %d at %d, want %d", i, c.Buf.Offset, want[i])
		}
	}
	if p.Weights != 832+4032+64 {
		t.Errorf("%d bytes of weights", p.Weights)
	}
}

// TestCheck holds that what would read or write beside memory is found.
func TestCheck(t *testing.T) {
	f := func(where program.Where, d tensor.DType, n int) *program.Buf {
		return &program.Buf{Name: "b", Where: where, Type: d, Len: n}
	}
	good := call(f(program.Output, tensor.F32, 4), f(program.Input, tensor.F32, 4))
	if err := (&program.Program{Steps: []program.Step{good}}).Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []*program.Buf
		want string
	}{
		{"an argument less", []*program.Buf{f(program.Output, tensor.F32, 4)}, "1 arguments for 2 parameters"},
		{"too short", []*program.Buf{f(program.Output, tensor.F32, 4), f(program.Input, tensor.F32, 3)}, "f32[3] for parameter p1 f32[4]"},
		{"of another type", []*program.Buf{f(program.Output, tensor.F32, 4), f(program.Input, tensor.I32, 4)}, "i32[4] for parameter p1 f32[4]"},
		{"into an input", []*program.Buf{f(program.Input, tensor.F32, 4), f(program.Input, tensor.F32, 4)}, "writes to constant or input"},
		{"into weights", []*program.Buf{f(program.Const, tensor.F32, 4), f(program.Input, tensor.F32, 4)}, "writes to constant or input"},
	} {
		s := good
		s.Args = c.args
		err := (&program.Program{Steps: []program.Step{s}}).Check()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
