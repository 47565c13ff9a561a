package simplify

import (
	"context"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/pass"
	"github.com/lathe-ml/lathe/compiler/rewrite"
)

// Options of the pass. The zero value is right for most callers.
type Options struct {
	// Dims binds named dimensions of the inputs, Shapes whole inputs; the
	// simplified model has them fixed.
	Dims   map[string]int
	Shapes map[string][]int
	// MaxGrowth bounds the bytes that folding may add to the model: what a
	// folded node makes, less the constants that only it read. 0 means
	// DefaultMaxGrowth, a negative number no growth.
	MaxGrowth int
	// MaxFold bounds the bytes of one folded result; 0 means DefaultMaxFold.
	MaxFold int
	// Only, if not empty, names the rules that run; Skip names those that do not.
	Only, Skip []string
}

// The defaults of the memory limits.
const (
	DefaultMaxGrowth = 1 << 20
	DefaultMaxFold   = 256 << 20
)

// maxRounds bounds how often the rules go over the model. Each round either
// edits or is the last; chains of a few hundred nodes settle in under ten.
const maxRounds = 64

// inferRounds bounds how many rounds look at shapes anew.
const inferRounds = 8

// Pass is the simplification of an ONNX graph.
func Pass(o Options) pass.Pass {
	return pass.Pass{
		Name: "simplify",
		Doc:  "fold constants, drop what does nothing, merge what is next to each other",
		From: ir.ONNX, To: ir.ONNX,
		Run: func(ctx context.Context, s *pass.Subject, log *rewrite.Log) (pass.Notes, error) {
			return run(ctx, s, log, o)
		},
	}
}

// simplifier is one run of the pass.
type simplifier struct {
	o       Options
	subject *pass.Subject
	facts   onnx.Facts
	growth  int                   // bytes that folding may still add
	refused map[*ir.Node]bool     // nodes that folding has tried in vain
	types   map[*ir.Value]ir.Type // of values that rules made
}

func run(ctx context.Context, sub *pass.Subject, log *rewrite.Log, o Options) (pass.Notes, error) {
	rules, err := chosen(o)
	if err != nil {
		return nil, err
	}
	s := &simplifier{o: o, subject: sub, growth: o.MaxGrowth, refused: map[*ir.Node]bool{}, types: map[*ir.Value]ir.Type{}}
	switch {
	case o.MaxGrowth == 0:
		s.growth = DefaultMaxGrowth
	case o.MaxGrowth < 0:
		s.growth = 0
	}
	if err := bind(sub.Graph, o); err != nil {
		return nil, err
	}
	variable := sub.Variable()
	rounds := int64(0)
	for rounds < maxRounds && !log.Full() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if rounds < inferRounds {
			if s.facts, err = onnx.InferFacts(sub.Graph, onnx.Options{Opsets: sub.Opsets}, variable); err != nil {
				return nil, err
			}
		}
		rounds++
		edits := 0
		rewrite.Each(sub.Graph, log, variable, func(e *rewrite.Editor) { edits += s.graph(e, rules) })
		if edits == 0 {
			break
		}
	}
	return pass.Notes{{Name: "rounds", Value: rounds}}, nil
}

// graph goes over one graph with all rules, and then with those that look at
// the whole of it.
func (s *simplifier) graph(e *rewrite.Editor, rules []rule) int {
	var local []rewrite.Rule
	c := &operands{Editor: e, s: s}
	edits := 0
	for i := range rules {
		switch r := &rules[i]; {
		case r.whole != nil:
			edits += r.whole(c, r.Name)
		default:
			local = append(local, r.bound(c))
		}
	}
	return edits + e.Sweep(local) + e.Dead()
}

// bind fixes the dimensions of the inputs that the options give, everywhere
// the model writes their names.
func bind(g *ir.Graph, o Options) error {
	for _, v := range g.Inputs {
		if _, given := o.Shapes[v.Name]; !given {
			continue
		}
		s, _, err := onnx.BindShape(v, onnx.Options{Shapes: o.Shapes})
		if err != nil {
			return err
		}
		v.Type = ir.TensorType(v.Type.DType, s...)
	}
	for name := range o.Shapes {
		if !hasInput(g, name) {
			return fault.New(fault.Usage, "the model has no input %q", name)
		}
	}
	if len(o.Dims) == 0 {
		return nil
	}
	seen := map[string]bool{}
	fix := func(vs []*ir.Value) {
		for _, v := range vs {
			for i, d := range v.Type.Shape {
				if n, ok := o.Dims[d.Param]; ok && d.N < 0 && d.Param != "" {
					shape := append([]ir.Dim{}, v.Type.Shape...)
					shape[i] = ir.Dim{N: n, Denotation: d.Denotation}
					v.Type.Shape = shape
					seen[d.Param] = true
				}
			}
		}
	}
	fix(g.Inputs)
	for name := range o.Dims {
		if !seen[name] {
			return fault.New(fault.Usage, "no input of the model has a dimension %q", name)
		}
	}
	fix(g.Outputs)
	fix(g.Infos)
	return nil
}

func hasInput(g *ir.Graph, name string) bool {
	for _, v := range g.Inputs {
		if v.Name == name {
			return true
		}
	}
	return false
}
