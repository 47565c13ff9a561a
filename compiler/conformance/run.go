package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
)

// Outputs is what a runner gives for one data set.
type Outputs struct {
	Data []*ir.Data
	// Bound names the inputs that were bound to their recorded values when the
	// model was compiled, because they act as shapes, axes, pads, scales or k.
	Bound []string
	// Error is the relative error, as the root of the mean square, that the
	// arithmetic which was asked for is allowed to have; 0 if only the tolerance
	// counts.
	Error float64
}

// Runner runs a model on a data set. It refuses with a fault of the class
// Unsupported; every other error counts as a wrong result. The recorded
// outputs of the set are not to be looked at.
type Runner func(ctx context.Context, m *onnxfile.Model, s *Set) (Outputs, error)

// Status is the verdict on a case.
type Status string

// The verdicts.
const (
	Pass        Status = "pass"
	Fail        Status = "fail"
	Unsupported Status = "unsupported"
)

// Result is the verdict on one case.
type Result struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Reason says what differs, or what is refused.
	Reason string `json:"reason,omitempty"`
	// Bound names the inputs that were bound at compile time: the case is
	// specialized.
	Bound []string `json:"bound,omitempty"`
	// Lenient: the case passes only under the lenient rules of Tolerance.
	Lenient bool          `json:"lenient,omitempty"`
	Op      string        `json:"op,omitempty"` // the op that is refused
	Took    time.Duration `json:"-"`
}

// Report is the verdict on all cases. Every case is counted once in Pass, Fail
// or Unsupported; Specialized and Lenient say how many of Pass needed that.
type Report struct {
	Backend     string    `json:"backend"`
	Tolerance   Tolerance `json:"tolerance"`
	Pass        int       `json:"pass"`
	Fail        int       `json:"fail"`
	Unsupported int       `json:"unsupported"`
	Specialized int       `json:"specialized"`
	Lenient     int       `json:"lenient"`
	Cases       []Result  `json:"cases"`
}

// Options of a run.
type Options struct {
	Backend   string // name of the runner, for the report
	Tolerance Tolerance
	Timeout   time.Duration // per case; 0: a minute
	Workers   int           // 0: one per processor
	// Done, if not nil, hears of each case as it ends, in any order, one at a
	// time.
	Done func(Result)
}

// Run runs all cases; when ctx ends, cases that did not start fail with its
// error.
func Run(ctx context.Context, cases []Case, run Runner, o Options) *Report {
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	rep := &Report{Backend: o.Backend, Tolerance: o.Tolerance, Cases: make([]Result, len(cases))}
	var wg sync.WaitGroup
	var mu sync.Mutex
	next := make(chan int)
	for range min(o.Workers, max(len(cases), 1)) {
		wg.Go(func() {
			for i := range next {
				r := One(ctx, cases[i], run, o)
				mu.Lock()
				rep.Cases[i] = r
				if o.Done != nil {
					o.Done(r)
				}
				mu.Unlock()
			}
		})
	}
	for i := range cases {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, r := range rep.Cases {
		rep.count(r)
	}
	return rep
}

func (rep *Report) count(r Result) {
	switch r.Status {
	case Pass:
		rep.Pass++
		if len(r.Bound) > 0 {
			rep.Specialized++
		}
		if r.Lenient {
			rep.Lenient++
		}
	case Unsupported:
		rep.Unsupported++
	default:
		rep.Fail++
	}
}

// One runs one case under its time limit. A case that does not return keeps
// its goroutine: Go cannot stop it.
func One(ctx context.Context, c Case, run Runner, o Options) Result {
	if err := ctx.Err(); err != nil {
		return Result{Name: c.Name, Status: Fail, Reason: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	start := time.Now()
	done := make(chan Result, 1)
	go func() { done <- guarded(ctx, c, run, o) }()
	var r Result
	select {
	case r = <-done:
	case <-ctx.Done():
		r = Result{Status: Fail, Reason: fmt.Sprintf("no result after %s", o.Timeout)}
	}
	r.Name, r.Took = c.Name, time.Since(start)
	return r
}

// guarded turns a panic into a failure of its case.
func guarded(ctx context.Context, c Case, run Runner, o Options) (r Result) {
	defer func() {
		if p := recover(); p != nil {
			r = Result{Status: Fail, Reason: fmt.Sprintf("panic: %v (%s)", p, panicSite(string(debug.Stack())))}
		}
	}()
	m, err := Load(c.Model)
	if err != nil {
		return refused(err)
	}
	defer m.Close()
	o.Tolerance = o.Tolerance.For(m.Graph)
	o.Tolerance.Step = max(o.Tolerance.Step, OutputStep(m.Graph))
	if Quantizes(m.Graph) {
		own := spread(c.Model)
		o.Tolerance.Step = max(o.Tolerance.Step, own)
		if o.Tolerance.norm > 0 {
			o.Tolerance.steps = max(o.Tolerance.steps, own)
		}
	}
	for _, dir := range c.Sets {
		s, err := ReadSet(m, dir)
		if err != nil {
			return refused(err)
		}
		if r = oneSet(ctx, m, s, run, o.Tolerance); r.Status != Pass {
			return r
		}
	}
	return r
}

func oneSet(ctx context.Context, m *onnxfile.Model, s *Set, run Runner, tol Tolerance) Result {
	out, err := run(ctx, m, s)
	if err != nil {
		return refused(err)
	}
	r := Result{Status: Pass, Bound: out.Bound}
	strict := tol
	strict.Lenient = false
	err = Compare(out.Data, s.Outputs, strict, false)
	if err == nil {
		return r
	}
	if tol.Lenient {
		if Compare(out.Data, s.Outputs, tol, Quantizes(m.Graph)) == nil {
			r.Lenient = true
			return r
		}
	}
	if out.Error > 0 && within(out.Data, s.Outputs, out.Error) {
		return r
	}
	if op := randomOp(m.Graph); op != "" && sameTypes(out.Data, s.Outputs) {
		return Result{Status: Unsupported, Op: op, Reason: fmt.Sprintf("%s is random: the recorded output is one draw, only types and shapes could be checked", op)}
	}
	return Result{Status: Fail, Reason: err.Error(), Bound: out.Bound}
}

func refused(err error) Result {
	r := Result{Status: Fail, Reason: err.Error()}
	if fault.Is(err, fault.Unsupported) {
		r.Status = Unsupported
		f := fault.As(err)
		r.Op, r.Reason = f.Op, f.Msg
	}
	return r
}

// panicSite is the first line of this module below the panic in a stack.
func panicSite(stack string) string {
	lines := strings.Split(stack, "\n")
	seen := false
	for i, l := range lines {
		if strings.HasPrefix(l, "panic(") {
			seen = true
		}
		if seen && strings.Contains(l, "lathe-ml/lathe/") && i+1 < len(lines) {
			at := strings.TrimSpace(lines[i+1])
			at, _, _ = strings.Cut(at, " ")
			if j := strings.Index(at, "/compiler/"); j >= 0 {
				at = at[j+1:]
			}
			return at
		}
	}
	return "no stack"
}

// Quantizes reports whether a graph holds ops that round to 8-bit integers.
func Quantizes(g *ir.Graph) bool {
	found := false
	_ = g.Walk(func(_ *ir.Graph, n *ir.Node) error {
		found = found || strings.Contains(n.Op, "Quantize") || strings.HasPrefix(n.Op, "QLinear")
		return nil
	})
	return found
}

// OutputStep is the largest quantization step of the graph's outputs: the scale
// of a DequantizeLinear that makes one (through ops that only move elements); 0
// if there is none.
func OutputStep(g *ir.Graph) float64 {
	step := 0.0
	for _, v := range g.Outputs {
		n := v.Def
		for n != nil && (n.Op == "Reshape" || n.Op == "Flatten" || n.Op == "Squeeze" || n.Op == "Unsqueeze" || n.Op == "Transpose" || n.Op == "Identity") {
			n = n.In(0).Def
		}
		if n == nil || n.Op != "DequantizeLinear" || n.In(1) == nil || n.In(1).Const == nil {
			continue
		}
		for _, s := range n.In(1).Const.Floats() {
			step = max(step, s)
		}
	}
	return step
}

// spread is how far the reference of a quantized model differs from itself when
// its optimizer is on: where a value lies between two steps, the order of a sum
// decides, and later layers multiply the difference. A meta.json beside the
// model may record it; 0 if there is none.
func spread(model string) float64 {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(model), "meta.json"))
	if err != nil {
		return 0
	}
	var meta struct {
		Diff []float64 `json:"ort_opt_disabled_vs_all_max_abs_diff"`
	}
	if json.Unmarshal(b, &meta) != nil || len(meta.Diff) == 0 {
		return 0
	}
	return slices.Max(meta.Diff)
}

// randomOp names an op of the graph whose results are drawn at random.
func randomOp(g *ir.Graph) string {
	op := ""
	_ = g.Walk(func(_ *ir.Graph, n *ir.Node) error {
		switch n.Op {
		case "Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial":
			op = n.Op
		case "Dropout":
			if len(n.Inputs) > 2 { // training_mode is given
				op = n.Op
			}
		}
		return nil
	})
	return op
}

func sameTypes(got, want []*ir.Data) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if got[i].Type().String() != want[i].Type().String() {
			return false
		}
	}
	return true
}
