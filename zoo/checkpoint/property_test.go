package checkpoint

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/deepspeed"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
	"github.com/lathe-ml/lathe/zoo/checkpoint/synthetic"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// draw makes a random small model with all that makes layouts hard.
func draw(t *testing.T, rng *rand.Rand) (c *atom.Checkpoint, rules func() *spec.Spec, tps []int, moe bool) {
	m := synthetic.Model{
		Layers: 1 + rng.Int64N(4), Hidden: 8, FFN: 16 + 8*rng.Int64N(2), Vocab: 5 + rng.Int64N(30), Positions: 3,
		Pipe: rng.IntN(2) == 0, Module: []tensor.DType{tensor.F32, tensor.BF16}[rng.IntN(2)],
		Groups: 1 + rng.IntN(2), Seed: rng.Uint64(),
	}
	divisor := []int64{0, 1, 4}[rng.IntN(3)]
	average, swiglu, gqa := rng.IntN(3) == 0, rng.IntN(2) == 0, rng.IntN(2) == 0
	moe = !m.Pipe && rng.IntN(3) == 0
	tps = []int{1, 2, 4}
	if average {
		tps = []int{1, 2} // the mean of four equal values may round
	}
	layer := map[bool]string{false: `layers\.\d+\.`, true: `\d+\.`}[m.Pipe]
	rules = func() *spec.Spec {
		s := synthetic.Rules(m)
		s.VocabDivisor = divisor
		s.Rules[0].Patterns = append(s.Rules[0].Patterns, `vision\.`)
		if swiglu {
			s.Rules = append(s.Rules, spec.Rule{Kind: spec.Fragment, Count: 2, Patterns: []string{layer + `mlp\.dense_h_to_4h\.(weight|bias)`}})
		}
		if gqa { // 8 query heads of 2, and 4 + 4 rows of 2 key and value heads
			s.Rules = append(s.Rules, spec.Rule{Kind: spec.Fragment, Patterns: []string{layer + `self_attention\.query_key_value\.(weight|bias)`},
				Sub:   &spec.SubShape{Open: true, Shape: []spec.Entry{{Tuple: true, Sizes: []int64{16, 4, 4}}}},
				Heads: []int64{8, 2, 2}})
		}
		if average {
			s.Rules[0].Kind = spec.Average
		}
		if err := s.Compile(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	c, err := synthetic.New(m, rules())
	if err != nil {
		t.Fatal(err)
	}
	extras(c, m, moe)
	return c, rules, tps, moe
}

// extras adds a buffer, a frozen parameter, a tied name and experts.
func extras(c *atom.Checkpoint, m synthetic.Model, moe bool) {
	one := func(name string, kind atom.Kind, seed uint64) {
		p := &atom.Param{Name: name, Shape: []int64{3, 5}, Kind: kind, Group: -1, Stages: []int{0}}
		p.Rule.Kind = spec.Replicated
		p.SetState(atom.Module, synthetic.Random(c, p.Shape, tensor.F32, m.Seed+seed))
		c.Params = append(c.Params, p)
	}
	if !m.Pipe {
		one("rotary.inv_freq", atom.Buffer, 1)
		c.Params[0].Aliases = []string{"lm_head.weight"}
		if !moe { // experts' files do not tell frozen parameters from buffers
			one("vision.frozen.weight", atom.Frozen, 2)
		}
	} else {
		one("1.inv_freq", atom.Buffer, 1)
		c.Params[len(c.Params)-1].Places = []atom.Place{{Layer: 1, Key: "inv_freq"}}
	}
	if !moe {
		return
	}
	g := len(c.Groups)
	c.Groups = append(c.Groups, torch.NewDict("lr", 1e-3, "moe", true, "name", "ep_size_2"))
	for l := range 2 {
		for e := range 4 {
			for i, w := range []string{"w1.weight", "w2.weight"} {
				p := &atom.Param{Name: fmt.Sprintf("layers.%d.mlp.deepspeed_moe.experts.deepspeed_experts.%d.%s", l, e, w),
					Shape: []int64{3, 7 - int64(i)}, Group: g, Stages: []int{0}, Step: int64(10)}
				p.Rule = spec.Match{Kind: spec.Replicated, Expert: true}
				for k, s := range []string{atom.FP32, "exp_avg", "exp_avg_sq", atom.Module} {
					d := tensor.F32
					if s == atom.Module {
						d = m.Module
					}
					p.SetState(s, synthetic.Random(c, p.Shape, d, m.Seed+uint64(1000+l*100+e*20+i*8+k)))
				}
				c.Params = append(c.Params, p)
			}
		}
	}
}

// rounds is how often a random test is repeated: LATHE_ROUNDS=1000 for long runs.
func rounds(n int) int {
	if v, err := strconv.Atoi(os.Getenv("LATHE_ROUNDS")); err == nil {
		return v
	}
	return n
}

// layoutFor draws a layout that DeepSpeed could have.
func layoutFor(rng *rand.Rand, c *atom.Checkpoint, tps []int, moe bool) deepspeed.Layout {
	l := deepspeed.Layout{TP: tps[rng.IntN(len(tps))], PP: 1, DP: 1 + rng.IntN(5), Zero: 1 + rng.IntN(3)}
	switch {
	case c.Topology.Pipe:
		l.Zero = 1
		l.PP = 1 + rng.IntN(3)
	case moe:
		l.TP, l.Zero = 1, 1+rng.IntN(2)
		l.EP = []int{1, 2, 4}[rng.IntN(3)]
		l.DP = l.EP * (1 + rng.IntN(3))
	}
	return l
}

// TestAnyLayoutToAnyLayout converts random models through random layouts and
// the universal form; what comes out is what went in, bit for bit.
func TestAnyLayoutToAnyLayout(t *testing.T) {
	n := rounds(16)
	for seed := range uint64(n) {
		rng := rand.New(rand.NewPCG(7, seed))
		c, rules, tps, moe := draw(t, rng)
		dir := t.TempDir()
		at := c
		trail := ""
		for step := range 3 {
			out := filepath.Join(dir, fmt.Sprint(step))
			target := Target{Format: DeepSpeed, Layout: layoutFor(rng, c, tps, moe)}
			if step == 1 && rng.IntN(2) == 0 {
				target = Target{Format: Universal, Dialect: "dict"}
			}
			trail += fmt.Sprintf(" -> %s %v", target.Format, target.Layout)
			convert(t, at, out, target)
			at = open(t, out, OpenOptions{Spec: rules()})
		}
		equalStates(t, at, c)
		for _, p := range c.Params {
			q := at.Param(p.Name)
			if q == nil || q.Kind != p.Kind || !slices.Equal(q.Aliases, p.Aliases) || !slices.Equal(q.Shape, p.Shape) {
				t.Errorf("%s: came back as %+v", p.Name, q)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d:%s", seed, trail)
		}
	}
}

// TestUniversalToNativeAndBack takes every recorded checkpoint through the
// universal form and other layouts back to its own.
func TestUniversalToNativeAndBack(t *testing.T) {
	root := casesDir(t)
	for _, name := range caseNames(t) {
		t.Run(name, func(t *testing.T) {
			src := open(t, filepath.Join(root, name, "source"), OpenOptions{})
			dir := t.TempDir()
			steps := []Target{
				{Format: Universal, Dialect: "dict"},
				{Format: DeepSpeed, Layout: deepspeed.Layout{TP: 1, PP: 1, DP: 3 + src.Topology.EP%3, Zero: 1, EP: 1}},
				{Format: DeepSpeed, Layout: deepspeed.Layout{TP: src.Topology.TP, PP: src.Topology.PP, DP: src.Topology.DP, Zero: src.Topology.Zero, EP: src.Topology.EP}},
				{Format: Universal},
			}
			at := src
			for i, s := range steps {
				out := filepath.Join(dir, fmt.Sprint(i))
				convert(t, at, out, s)
				at = open(t, out, OpenOptions{})
			}
			equalStates(t, at, src)
			equalStates(t, src, at)
		})
	}
}
