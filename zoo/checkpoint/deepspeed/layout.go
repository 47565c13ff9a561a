package deepspeed

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Layout is a target layout. Zero degrees mean those of the source.
type Layout struct {
	TP, PP, DP, EP, Zero int
	// Stages are the first layers of the pipeline stages; nil balances the
	// numbers of parameters, as DeepSpeed does.
	Stages []int
	// VocabDivisor is Megatron's make_vocab_size_divisible_by; 0 means what the
	// checkpoint says.
	VocabDivisor int64
	// Tag is the name of the folder; empty for the source's.
	Tag string
}

// target is the state of planning a native checkpoint.
type target struct {
	c      *atom.Checkpoint
	l      Layout
	bf16   bool // file prefix
	bf16o  bool // the BF16 optimizer, which has no zero_stage
	pipe   bool
	module tensor.DType
	config *torch.Dict
	params []*cut // all, in order
	groups int
	states []string // optimizer states beside fp32
	moe    *experts
	pad    int64
}

// cut is a parameter with its shards on the target's tensor-parallel ranks.
type cut struct {
	*atom.Param
	views  []geometry.View
	stages []int
}

func (c *cut) on(pp int) bool { return slices.Contains(c.stages, pp) }

// numel is the size of the shard of a rank.
func (c *cut) numel(tp int) int64 { return geometry.Numel(c.views[tp].Local) }

func unsupported(format string, args ...any) *fault.Error {
	return fault.New(fault.Unsupported, format, args...)
}

// newTarget settles the layout and cuts every parameter.
func newTarget(c *atom.Checkpoint, l Layout) (*target, error) {
	s := c.Topology
	t := &target{c: c, l: l, bf16: s.BF16, module: c.ModuleType, config: c.Config}
	for _, d := range []struct {
		to   *int
		from int
	}{{&t.l.TP, s.TP}, {&t.l.PP, s.PP}, {&t.l.DP, s.DP}, {&t.l.Zero, s.Zero}} {
		if *d.to == 0 {
			*d.to = max(d.from, 1)
		}
	}
	if t.l.Zero < 1 || t.l.Zero > 3 {
		return nil, fault.New(fault.Usage, "ZeRO stage %d cannot be written", t.l.Zero).Hint("use zero=1, 2 or 3")
	}
	if t.module == tensor.Invalid {
		t.module = tensor.F32
		if t.bf16 {
			t.module = tensor.BF16
		}
	}
	// A source that knows nothing of ranks tells by its configuration.
	if en, ok := sub(c.Config, "bf16").Get("enabled"); ok && en == true {
		t.bf16 = true
	}
	_, hasStage := c.Optim.Get("zero_stage")
	t.bf16o = c.Optim != nil && !hasStage && t.bf16 && t.l.Zero == 1 && c.Topology.Zero == 1
	if err := t.pipeline(); err != nil {
		return nil, err
	}
	if err := t.cutAll(); err != nil {
		return nil, err
	}
	for _, n := range c.StateNames() {
		if n != atom.FP32 {
			t.states = append(t.states, n)
		}
	}
	if err := t.findExperts(); err != nil {
		return nil, err
	}
	return t, t.assign()
}

var reLayerName = regexp.MustCompile(`^(\d+)\.`)

// pipeline decides whether the model is a PipelineModule, by its names.
func (t *target) pipeline() error {
	t.pipe = t.c.Topology.Pipe
	named, all := 0, 0
	for _, p := range t.c.Params {
		if p.Kind != atom.Trained {
			continue
		}
		all++
		if reLayerName.MatchString(p.Name) || strings.HasPrefix(p.Name, "tied_modules.") {
			named++
		}
	}
	t.pipe = t.pipe || all > 0 && named == all
	switch {
	case t.l.PP > 1 && !t.pipe:
		return unsupported("the model is no pipeline module: its parameters do not say their layer, so it cannot be cut into %d stages", t.l.PP).
			Hint("use pp=1; tp, dp and zero can be chosen freely")
	case t.l.PP > 1 && t.l.Zero > 1:
		return unsupported("DeepSpeed runs pipeline stages with ZeRO-1 only, not with ZeRO-%d", t.l.Zero).Hint("use zero=1, or pp=1")
	case t.pipe && t.l.Zero == 3:
		return unsupported("DeepSpeed runs a pipeline module with ZeRO-1 only, not with ZeRO-3").Hint("use zero=1")
	}
	return nil
}

// cutAll computes the shards of every parameter.
func (t *target) cutAll() error {
	tp := t.l.TP
	if tp > 1 && len(t.c.Spec.Rules) == 0 && t.c.Topology.TP == 1 && !t.anyRule() {
		return unsupported("nothing says how %d tensor-parallel ranks cut the parameters", tp).
			Hint("lathe checkpoint inspect --spec-out spec.yaml proposes rules; check them and give them with --spec")
	}
	if t.l.VocabDivisor > 0 {
		t.c.Spec.VocabDivisor = t.l.VocabDivisor
	}
	for _, p := range t.c.Params {
		pad := int64(0)
		if p.Rule.Vocabulary && len(p.Shape) > 0 {
			pad = t.c.Spec.PadVocab(p.Shape[0], tp)
			t.pad = pad
		}
		v, err := p.Rule.Cut(p.Shape, tp, pad)
		if err != nil {
			return unsupported("parameter %s: %w", p.Name, err)
		}
		t.params = append(t.params, &cut{Param: p, views: v})
		if p.Kind == atom.Trained {
			t.groups = max(t.groups, p.Group+1)
		}
	}
	return nil
}

// anyRule tells whether any parameter's files said how it is cut.
func (t *target) anyRule() bool {
	return slices.ContainsFunc(t.c.Params, func(p *atom.Param) bool {
		m := p.Rule
		return p.Kind == atom.Trained && (m.Kind != "fragment" || m.Dim != 0 || m.Count > 1 || m.Sub != nil || m.Vocabulary)
	})
}

// layerOf is the layer of a pipeline parameter; -1 for tied ones.
func layerOf(name string) int {
	m := reLayerName.FindStringSubmatch(name)
	if m == nil {
		return -1
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// assign gives every parameter its pipeline stages.
func (t *target) assign() error {
	if !t.pipe || t.l.PP == 1 {
		for _, p := range t.params {
			p.stages = []int{0}
		}
		return nil
	}
	if t.l.PP == t.c.Topology.PP && t.l.Stages == nil {
		for _, p := range t.params {
			p.stages = p.Stages
		}
		return nil
	}
	starts, err := t.starts()
	if err != nil {
		return err
	}
	for _, p := range t.params {
		l := layerOf(p.Name)
		if l < 0 { // a tied module serves the first and the last stage
			p.stages = []int{0, t.l.PP - 1}
			continue
		}
		stage := 0
		for s, first := range starts {
			if l >= first {
				stage = s
			}
		}
		p.stages = []int{stage}
	}
	return nil
}

// starts gives the first layer of every stage.
func (t *target) starts() ([]int, error) {
	last, tied := 0, int64(0)
	for _, p := range t.params {
		last = max(last, layerOf(p.Name))
	}
	if last > maxRanks {
		return nil, unsupported("a parameter is of layer %d", last)
	}
	weights := make([]int64, last+1)
	for _, p := range t.params {
		if p.Kind != atom.Trained {
			continue
		}
		if l := layerOf(p.Name); l >= 0 {
			weights[l] += geometry.Numel(p.Shape)
		} else {
			weights[0] += geometry.Numel(p.Shape)
			tied += geometry.Numel(p.Shape)
		}
	}
	if tied > 0 {
		weights = append(weights, tied) // the layer that uses the tied module again
	}
	if t.l.Stages != nil {
		s := t.l.Stages
		if len(s) != t.l.PP || s[0] != 0 || !slices.IsSorted(s) || s[len(s)-1] >= len(weights) {
			return nil, fault.New(fault.Usage, "first layers %v do not describe %d stages of %d layers", s, t.l.PP, len(weights)).
				Hint("give one first layer per stage, from 0, ascending")
		}
		return s, nil
	}
	if t.l.PP > len(weights) {
		return nil, unsupported("%d layers cannot be cut into %d pipeline stages", len(weights), t.l.PP)
	}
	return balance(weights, t.l.PP), nil
}

// balance cuts layers into contiguous stages such that the largest stage is
// smallest; of equal choices the one with the smallest difference.
func balance(weights []int64, parts int) []int {
	n := len(weights)
	sum := make([]int64, n+1)
	for i, w := range weights {
		sum[i+1] = sum[i] + w
	}
	type cell struct {
		high, low int64
		from      int
		ok        bool
	}
	best := make([][]cell, parts+1)
	for i := range best {
		best[i] = make([]cell, n+1)
	}
	best[0][0] = cell{0, 1<<62 - 1, 0, true}
	for i := 1; i <= parts; i++ {
		for j := i; j <= n; j++ {
			for k := i - 1; k < j; k++ {
				b := best[i-1][k]
				if !b.ok {
					continue
				}
				w := sum[j] - sum[k]
				c := cell{max(b.high, w), min(b.low, w), k, true}
				if o := best[i][j]; !o.ok || c.high < o.high || c.high == o.high && c.high-c.low < o.high-o.low {
					best[i][j] = c
				}
			}
		}
	}
	starts := make([]int, parts)
	for i, j := parts, n; i > 0; i-- {
		j = best[i][j].from
		starts[i-1] = j
	}
	return starts
}

// String is the layout as people write it.
func (l Layout) String() string {
	return fmt.Sprintf("tp=%d,pp=%d,dp=%d,zero=%d", l.TP, l.PP, l.DP, l.Zero)
}
