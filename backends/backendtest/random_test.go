package backendtest

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/cpuid"
	"github.com/lathe-ml/lathe/backends/interp"
	"github.com/lathe-ml/lathe/backends/portable"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
)

var (
	graphs = flag.Int("graphs", 50, "how many random graphs")
	native = flag.Int("native", 8, "how many of them to compile for the CPU, too; as many for x86-64-v3, and in f32-fast")
	seed   = flag.Uint64("seed", 1, "the first seed")
	ops    = flag.Int("ops", 14, "ops of a random graph")
	dump   = flag.Bool("dump", false, "print the kernels of the first seed")
	only   = flag.String("only", "", "run one backend: interp, backwards, portable or cpu")
)

// backwards is interp with the iterations of unordered loops reversed.
func backwards() backend.Backend {
	be := interp.Backend()
	be.Name = "backwards"
	be.Direct = func(p *program.Program, _ int) (backend.Session, error) {
		return interp.New(p, interp.Options{Backwards: true})
	}
	return be
}

// found are seeds that once showed an error: a guard that never holds, names
// that collide, a sorted value with a halo, a row group's halo left unset, a
// guard that holds for no lane of a chunk, neighbours under one guard that GCC
// loads together.
var found = []uint64{32, 34, 83, 20184, 5465, 520}

// column is a way to run random graphs: a backend, the CPU that it makes code
// for, a precision, and which of the graphs it gets.
type column struct {
	backend.Backend
	cpu      string
	mode     precision.Mode
	from, to int
}

func (c column) String() string {
	if c.cpu == "" && c.mode == "" {
		return c.Name
	}
	return c.Name + " " + c.cpu + " " + c.mode.String()
}

// columns are all graphs on the backends that need no C compiler, and some on
// native code: these differ, since what is compiled costs time.
func columns() []column {
	n, all := *native, len(found)+*graphs
	list := []column{
		{Backend: interp.Backend(), to: all},
		{Backend: interp.Backend(), mode: precision.Fast, to: all},
		{Backend: backwards(), to: all},
		{Backend: portable.Backend(), to: all},
	}
	if _, err := toolchain.Find(""); err != nil {
		return list
	}
	list = append(list, column{Backend: cpu.Backend(), to: n})
	if runs("x86-64-v3") {
		list = append(list, column{Backend: cpu.Backend(), cpu: "x86-64-v3", from: n / 2, to: n + n/2},
			column{Backend: cpu.Backend(), cpu: "x86-64-v3", mode: precision.Fast, from: n + n/2, to: 2 * n})
	}
	return append(list, column{Backend: cpu.Backend(), mode: precision.Fast, from: n, to: 2 * n})
}

// runs reports whether this machine runs code for a CPU.
func runs(name string) bool {
	t, err := cpu.Target(name)
	have := cpuid.Here()
	return err == nil && t.Arch == runtime.GOARCH && !slices.ContainsFunc(t.Needs(), func(f string) bool { return !slices.Contains(have, f) })
}

// TestRandomGraphs compares the evaluator with every backend.
func TestRandomGraphs(t *testing.T) {
	_, noCC := toolchain.Find("")
	o := Options{CacheDir: t.TempDir()}
	seeds := slices.Clone(found)
	for s := *seed; s < *seed+uint64(*graphs); s++ {
		seeds = append(seeds, s)
	}
	for i, s := range seeds {
		r, err := RandomGraph(s, *ops)
		if err != nil {
			t.Errorf("seed %d: the generator made a wrong graph: %v", s, err)
			continue
		}
		for _, c := range columns() {
			if *only != "" && c.Name != *only || i < c.from || i >= c.to {
				continue
			}
			o := o
			o.CPU, o.Lower.Precision = c.cpu, c.mode
			if err := guarded(c.Backend, o, r); err != nil {
				t.Errorf("seed %d on %s: %v\n%s", s, c, err, shrunk(c.Backend, o, s))
			}
		}
	}
	if noCC != nil {
		t.Logf("the native backend was left out: %v", noCC)
	}
}

func guarded(be backend.Backend, o Options, r *Random) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return CheckRandom(context.Background(), be, o, r)
}

// shrunk describes the smallest prefix that fails.
func shrunk(be backend.Backend, o Options, s uint64) string {
	for n := 1; n <= *ops; n++ {
		r, err := RandomGraph(s, n)
		if err != nil {
			continue
		}
		if err := guarded(be, o, r); err != nil {
			return fmt.Sprintf("with %d ops: %v\n%s", n, err, clip(ir.Print(r.Graph)))
		}
	}
	return ""
}

func clip(s string) string {
	if len(s) > 3000 {
		return s[:3000] + "…"
	}
	return s
}

// TestRandomGraphsVary holds that the generator reaches what it is for.
func TestRandomGraphsVary(t *testing.T) {
	seen := map[string]int{}
	for s := range uint64(60) {
		r, err := RandomGraph(s, 14)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range r.Graph.Nodes {
			seen[n.Op]++
		}
	}
	for _, op := range []string{"add", "mul", "where", "reshape", "transpose", "broadcast", "slice", "pad", "concat", "reduce_sum",
		"reduce_max", "dot", "conv", "window_max", "window_sum", "gather", "scatter", "cumulate", "argmax", "sort", "cast", "exp", "div"} {
		if seen[op] < 3 {
			t.Errorf("%s occurs %d times in 60 graphs", op, seen[op])
		}
	}
}

// TestDump prints the kernels of -seed cut to -ops, for whoever hunts a bug.
func TestDump(t *testing.T) {
	if !*dump {
		t.Skip("asked for with -dump")
	}
	r, err := RandomGraph(*seed, *ops)
	if err != nil {
		t.Fatal(err)
	}
	tr, _ := interp.Backend().Target("")
	p, err := compiler.Program(r.Graph, tr, compiler.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(ir.Print(r.Graph))
	for i, s := range p.Steps {
		args := ""
		for _, a := range s.Args {
			args += fmt.Sprintf(" %s@%d:%d", a.Name, a.Where, a.Offset)
		}
		t.Logf("step %d %s:%s\n%s", i, s.Label, args, s.Kernel)
	}
}
