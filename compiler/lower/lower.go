package lower

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Options are what lowering needs to know of the target.
type Options struct {
	// Lanes is the number of f32 elements of a vector register; 0 or 1: none,
	// and no blocked layouts.
	Lanes int
	// Regs is the number of vector registers.
	Regs int
	// Threads is how many threads will share a program's work, to cut it for;
	// the program runs with any number. 0 is 1.
	Threads int
	// Features are the target's instruction sets, as backend.Traits names them.
	Features []string
	// Precision is how exact f32 arithmetic is to be.
	Precision precision.Mode
	// PrecisionAt gives each layer a precision of its own, by the name of the value
	// that it stores; nil: all have Precision.
	PrecisionAt func(layer string) precision.Mode
	// Schedules gives recorded decisions; nil: the heuristics decide.
	Schedules schedule.Lookup
	// Explore asks for the neighbours of every decision.
	Explore bool
}

// Lower turns a core graph into a program.
func Lower(g *ir.Graph, o Options) (*program.Program, error) {
	l, err := newLowerer(g, o)
	if err != nil {
		return nil, err
	}
	if err := l.run(); err != nil {
		return nil, err
	}
	return l.p, nil
}

func newLowerer(g *ir.Graph, o Options) (*lowerer, error) {
	if o.Lanes == 0 {
		o.Lanes = 1
	}
	g, clamped, err := prepare(g, o.multipliesBytes())
	if err != nil {
		return nil, err
	}
	if o.Lanes >= 4 && len(clamped) == 0 && !o.otherForms() {
		if g, err = inPiecesOf(g, o.Lanes); err != nil {
			return nil, err
		}
	}
	return &lowerer{
		g: g, o: o, clamped: clamped,
		p:       &program.Program{Name: g.Name},
		uses:    map[*ir.Value][]*ir.Node{},
		isOut:   map[*ir.Value]bool{},
		group:   map[*ir.Value]*group{},
		member:  map[*ir.Value]*group{},
		places:  map[*ir.Value]*place{},
		consts:  map[*ir.Value]*tensor.Tensor{},
		packed:  map[string]*program.Buf{},
		kernel:  map[string]*loop.Kernel{},
		moved:   map[string]*place{},
		convs:   map[*ir.Node]*tiledConv{},
		dots:    map[*ir.Node]*tiledDot{},
		sites:   map[string]*site{},
		fused:   map[*group][]string{},
		joined:  map[operand]bool{},
		blocky:  map[*ir.Value]bool{},
		aliases: map[*ir.Value]bool{},
	}, nil
}

// run makes the program.
func (l *lowerer) run() error {
	if err := l.check(); err != nil {
		return err
	}
	l.collect()
	l.fuse()
	l.nameFused()
	l.arrange()
	l.ports()
	for _, n := range l.g.Nodes {
		for _, v := range n.Outputs {
			gr := l.group[v]
			if gr == nil || v != n.Outputs[0] {
				continue
			}
			if err := l.emit(gr); err != nil {
				return fault.New(fault.Unsupported, "%w", err).AtNode(n.Origin, n.Op)
			}
			if l.taps != nil {
				if err := l.watch(gr); err != nil {
					return err
				}
			}
		}
	}
	if err := l.finishOutputs(); err != nil {
		return err
	}
	for _, s := range l.used {
		l.p.Sites = append(l.p.Sites, s.Site)
	}
	l.p.Plan()
	if err := l.p.Check(); err != nil {
		return fmt.Errorf("internal error after lowering: %w", err)
	}
	return nil
}

// place is a value in memory.
type place struct {
	buf    *program.Buf
	layout Layout
}

type lowerer struct {
	g       *ir.Graph
	o       Options
	p       *program.Program
	uses    map[*ir.Value][]*ir.Node
	isOut   map[*ir.Value]bool
	group   map[*ir.Value]*group // by the value that the group stores
	member  map[*ir.Value]*group // by every value that the group computes
	places  map[*ir.Value]*place
	consts  map[*ir.Value]*tensor.Tensor
	packed  map[string]*program.Buf
	kernel  map[string]*loop.Kernel
	moved   map[string]*place // values copied into another layout
	dear    []*ir.Node        // elementwise ops that cost more than a load and are computed where they are read
	convs   map[*ir.Node]*tiledConv
	fused   map[*group][]string // the ops of a group
	joined  map[operand]bool    // operands of concatenations that are computed in place
	aliases map[*ir.Value]bool  // slices that lie in what they are of
	blocky  map[*ir.Value]bool  // values that come from convolutions in channel blocks
	sites   map[string]*site
	used    []*site  // those that were used, in order
	site    *site    // of the kernels being emitted; nil: they leave nothing open
	layer   string   // the value that the group being emitted stores
	taps    *Watched // nil: nothing is watched
	dots    map[*ir.Node]*tiledDot
	clamped map[*ir.Value]bool // floats that stand for elements of an integer type

	changes []func(*schedule.Choice) // neighbours of the choice being made
}

// storable reports whether compiled memory holds elements of the type.
func storable(d tensor.DType) bool {
	switch d {
	case tensor.F32, tensor.F64, tensor.F16, tensor.BF16, tensor.Bool,
		tensor.I8, tensor.I16, tensor.I32, tensor.I64, tensor.U8, tensor.U16, tensor.U32, tensor.U64:
		return true
	}
	return false
}

func (l *lowerer) check() error {
	for _, v := range l.g.Inputs {
		if !storable(v.DType()) {
			return fault.New(fault.Unsupported, "input %q is %s, which compiled code does not hold", v.Name, v.DType().ONNX()).Hint("use the reference evaluator")
		}
	}
	for _, n := range l.g.Nodes {
		for _, v := range n.Outputs {
			if !storable(v.DType()) {
				return fault.New(fault.Unsupported, "element type %s at run time is not supported by compiled targets", v.DType().ONNX()).AtNode(n.Origin, n.Op)
			}
		}
	}
	return nil
}

func (l *lowerer) collect() {
	for _, v := range l.g.Outputs {
		l.isOut[v] = true
	}
	for _, n := range l.g.Nodes {
		for _, v := range n.Inputs {
			l.uses[v] = append(l.uses[v], n)
		}
	}
}

// ports gives inputs and outputs their buffers.
func (l *lowerer) ports() {
	for i, v := range l.g.Inputs {
		s := v.Static()
		b := &program.Buf{Name: v.Name, Where: program.Input, Type: v.DType(), Len: tensor.Numel(s), Index: i}
		l.places[v] = &place{b, plain(s)}
		l.p.Inputs = append(l.p.Inputs, program.Port{Name: v.Name, Type: v.DType(), Shape: s, Buf: b})
	}
	for i, v := range l.g.Outputs {
		s := v.Static()
		b := &program.Buf{Name: v.Name, Where: program.Output, Type: v.DType(), Len: tensor.Numel(s), Index: i}
		l.p.Outputs = append(l.p.Outputs, program.Port{Name: v.Name, Type: v.DType(), Shape: s, Buf: b})
		if p := l.places[v]; p != nil && p.buf.Where == program.Arena && p.layout.isPlain() {
			p.buf = b
		}
	}
}

// finishOutputs copies outputs that lie elsewhere or otherwise.
func (l *lowerer) finishOutputs() error {
	for i, v := range l.g.Outputs {
		b := l.p.Outputs[i].Buf
		if p := l.places[v]; p != nil && p.buf == b {
			continue
		}
		if err := l.copyTo(v, &place{b, plain(v.Static())}); err != nil {
			return err
		}
	}
	return nil
}

func (l *lowerer) newBuf(name string, d tensor.DType, n int) *program.Buf {
	return &program.Buf{Name: name, Where: program.Arena, Type: d, Len: n}
}

// fresh names a loop variable; names are unique within a kernel because the
// builder counts.
func (k *kb) fresh(name string, n int) *loop.Var {
	return &loop.Var{Name: k.named(name), N: n}
}

// named makes a name of its own, which is never that of a type in C.
func (k *kb) named(name string) string {
	k.vars++
	switch full := fmt.Sprintf("%s%d", name, k.vars); full {
	case "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f16", "f32", "f64":
		return k.named(name)
	default:
		return full
	}
}

// finish makes a kernel of a body and appends the step that calls it.
func (k *kb) finish(family string, body []loop.Stmt, flops int64) {
	kr := &loop.Kernel{Family: family, Params: k.params, Locals: k.locals, Body: body, Flops: flops, Label: k.label}
	for _, a := range k.args {
		kr.Bytes += int64(a.Size())
	}
	text := kr.String()
	if old := k.l.kernel[text]; old != nil {
		kr = old
	} else {
		k.l.kernel[text] = kr
		k.l.p.Kernels = append(k.l.p.Kernels, kr)
	}
	step := program.Step{Kernel: kr, Args: k.args, Label: k.label, Origin: k.origin, Layer: k.l.layer}
	if k.l.site != nil {
		step.Site = k.l.site.Key
	}
	k.l.p.Steps = append(k.l.p.Steps, step)
}

// nameFused lists the ops of each group.
func (l *lowerer) nameFused() {
	for _, n := range l.g.Nodes {
		if g := l.member[n.Outputs[0]]; g != nil {
			l.fused[g] = append(l.fused[g], n.Op)
		}
	}
}

// emit makes the kernel of a group.
func (l *lowerer) emit(g *group) error {
	l.site, l.layer = nil, g.root.Name
	switch {
	case l.aliases[g.root]:
		return nil
	case g.attention != nil:
		return l.emitAttention(g)
	case len(g.rows) > 0:
		return l.emitRows(g)
	case g.mix != nil:
		return l.emitMix(g)
	case g.anchor == nil:
		return l.emitPointwise(g)
	}
	switch g.anchor.Op {
	case "conv":
		if done, err := l.emitTiledConv(g); done || err != nil {
			return err
		}
		return l.emitConv(g)
	case "dot":
		if done, err := l.emitTiledDot(g); done || err != nil {
			return err
		}
		return l.emitDot(g)
	case "window_max", "window_sum":
		return l.emitWindow(g)
	case "window_argmax":
		return l.emitWindowArg(g)
	case "reduce_sum", "reduce_prod", "reduce_max", "reduce_min":
		return l.emitReduce(g)
	case "argmax", "argmin":
		return l.emitArg(g)
	case "cumulate":
		return l.emitCumulate(g)
	case "scatter":
		return l.emitScatter(g)
	case "sort":
		return l.emitSort(g)
	case "recurrent":
		return l.emitRecurrent(g)
	}
	return fmt.Errorf("core op %s has no kernel generator", g.anchor.Op)
}
