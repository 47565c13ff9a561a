package compiler_test

import (
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

var traits = backend.Traits{CPU: "test", Arch: "any", Lanes: 8, Regs: 16}

// network has a convolution that may take several forms, one that follows it,
// and a product.
func network() *ir.Graph {
	b := core.NewBuilder("g")
	x := b.Input("x", tensor.F32, 1, 16, 12, 12)
	for _, k := range []int{3, 1} {
		w := tensor.New(tensor.F32, 16, 16, k, k)
		for i := range w.Len() {
			w.SetFloat(i, float64(i%7)/64)
		}
		pad := []int{k / 2, k / 2}
		x = b.Conv(x, b.Const(w), core.ConvSpec{Strides: []int{1, 1}, Dilations: []int{1, 1}, Lo: pad, Hi: pad, Groups: 1})
	}
	w := tensor.New(tensor.F32, 144, 10)
	b.Output(b.MatMul(b.Reshape(x, 16, 144), b.Const(w), tensor.F32))
	return b.G
}

func text(p *program.Program) string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString(s.Kernel.String())
	}
	return b.String()
}

// TestStaleRecords holds that a record which the generators cannot take as it
// stands is a miss as a whole: the kernels are those without a book, also where
// a part of the record would serve.
func TestStaleRecords(t *testing.T) {
	g := network()
	plain, err := compiler.Program(g, traits, compiler.Options{Explore: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(plain.Sites) != 3 {
		t.Fatalf("%d sites, want 3", len(plain.Sites))
	}
	for _, record := range []string{
		"", "form=none", "form=direct ob=99 tr=1 tw=1", "form=direct ob=1 tr=1 tw=1 rows=7",
		"form=direct prefetch=3", "form=pixels rows=3", "form=winograd4 rows=1000000",
	} {
		c, err := schedule.Parse(record)
		if err != nil {
			t.Fatal(err)
		}
		asked := 0
		p, err := compiler.Program(g, traits, compiler.Options{Schedules: func(string) (schedule.Choice, bool) {
			asked++
			return c, true
		}})
		if err != nil {
			t.Errorf("%q: %v", record, err)
			continue
		}
		if asked == 0 || text(p) != text(plain) {
			t.Errorf("%q changes the program", record)
		}
		for _, s := range p.Sites {
			if s.Recorded {
				t.Errorf("%q counts as recorded at %s", record, s.Key)
			}
		}
	}
	// One that can be taken, beside one that cannot.
	key, other := plain.Sites[0].Key, plain.Sites[1].Key
	p, err := compiler.Program(g, traits, compiler.Options{Schedules: func(k string) (schedule.Choice, bool) {
		switch k {
		case key:
			return schedule.Choice{Form: "direct", OB: 1, TR: 1, TW: 5}, true
		case other:
			return schedule.Choice{Form: "nonsense"}, true
		}
		return schedule.Choice{}, false
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Sites {
		if want := s.Key == key; s.Recorded != want || want && (s.Chosen.Form != "direct" || s.Chosen.TW != 5) {
			t.Errorf("%s: recorded %v, %s", s.Key, s.Recorded, s.Chosen)
		}
	}
	if text(p) == text(plain) {
		t.Error("a record that can be taken changes nothing")
	}
}

// TestNextRecord holds that a record which cannot be taken gives way to the next
// best one of its key, and that no record is left if none can.
func TestNextRecord(t *testing.T) {
	g := network()
	plain, err := compiler.Program(g, traits, compiler.Options{Explore: true})
	if err != nil {
		t.Fatal(err)
	}
	key := plain.Sites[0].Key
	bad, good := schedule.Choice{Form: "nonsense"}, schedule.Choice{Form: "direct", OB: 1, TR: 1, TW: 5}
	for _, c := range []struct {
		list  []schedule.Choice
		taken bool
	}{{[]schedule.Choice{good, bad}, true}, {[]schedule.Choice{bad, bad, good}, true}, {[]schedule.Choice{bad, bad}, false}, {nil, false}} {
		p, err := compiler.Program(g, traits, compiler.Options{Others: func(k string) []schedule.Choice {
			if k == key {
				return c.list
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range p.Sites {
			if taken := c.taken && s.Key == key; s.Recorded != taken || taken && !s.Chosen.Honours(good) {
				t.Errorf("%v: %s: recorded %v, %s", c.list, s.Key, s.Recorded, s.Chosen)
			}
		}
		if !c.taken && text(p) != text(plain) {
			t.Errorf("%v: records that cannot be taken change the program", c.list)
		}
	}
}

// TestProposals holds that every neighbour that a generator proposes is taken
// as it stands, alone.
func TestProposals(t *testing.T) {
	g := network()
	plain, err := compiler.Program(g, traits, compiler.Options{Explore: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range plain.Sites {
		if len(s.Space) < 10 {
			t.Errorf("%s has %d neighbours: %v", s.Key, len(s.Space), s.Space)
		}
		for _, c := range s.Space {
			p, err := compiler.Program(g, traits, compiler.Options{Schedules: func(k string) (schedule.Choice, bool) { return c, k == s.Key }})
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range p.Sites {
				if q.Key == s.Key && (!q.Recorded || !q.Chosen.Honours(c)) {
					t.Errorf("%s: %q became %q", s.Key, c, q.Chosen)
				}
			}
		}
	}
}

// TestPrecisionsOfTargets holds that a precision below f32 is refused by name
// where the CPU has no instructions for it, and only there.
func TestPrecisionsOfTargets(t *testing.T) {
	for _, c := range []struct {
		mode     precision.Mode
		features []string
		refused  string
	}{
		{precision.BF16, nil, "the precision bf16 needs avx512-bf16 or amx-bf16, which test does not have"},
		{precision.BF16, []string{"amx-bf16"}, ""},
		{precision.BF16, []string{"avx512-bf16"}, ""},
		{precision.F16, []string{"avx512-bf16"}, "the precision f16 needs f16c, which test does not have"},
		{precision.F16, []string{"f16c"}, ""},
		{precision.Fast, nil, ""},
	} {
		tr := traits
		tr.Features = c.features
		_, err := compiler.Program(network(), tr, compiler.Options{Precision: c.mode})
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%s with %v: %v", c.mode, c.features, err)
		case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%s with %v: %v, want %q", c.mode, c.features, err, c.refused)
		}
	}
}
