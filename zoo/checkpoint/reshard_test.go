package checkpoint

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/deepspeed"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
)

// setting is a case.json.
type setting struct {
	World    int   `json:"world"`
	Stage    int   `json:"stage"`
	TP       int   `json:"tp"`
	PP       int   `json:"pp"`
	EP       int   `json:"ep_size"`
	Experts  int   `json:"moe_experts"`
	VocabDiv int64 `json:"vocab_div"`
}

func (s setting) layout() deepspeed.Layout {
	tp, pp := max(s.TP, 1), max(s.PP, 1)
	return deepspeed.Layout{TP: tp, PP: pp, DP: s.World / tp / pp, EP: s.EP, Zero: s.Stage, VocabDivisor: s.VocabDiv}
}

func readSetting(t testing.TB, file string) setting {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s setting
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReshardEqualsGolden(t *testing.T) {
	root := casesDir(t)
	for _, name := range caseNames(t) {
		targets, err := os.ReadDir(filepath.Join(root, name, "resharded_golden"))
		if err != nil {
			continue
		}
		for _, to := range targets {
			t.Run(name+"/"+to.Name(), func(t *testing.T) {
				golden := filepath.Join(root, name, "resharded_golden", to.Name())
				set := readSetting(t, filepath.Join(golden, "case.json"))
				src := open(t, filepath.Join(root, name, "source"), OpenOptions{})
				out := filepath.Join(t.TempDir(), "out")
				convert(t, src, out, Target{Format: DeepSpeed, Layout: set.layout()})
				got, want := open(t, out, OpenOptions{}), open(t, golden, OpenOptions{})
				if g, w := got.Topology, want.Topology; g != w {
					t.Errorf("topology %+v, golden has %+v", g, w)
				}
				equalStates(t, got, want)
				equalStates(t, want, got)
				equalShapes(t, got, want)
				equalOracle(t, got, golden, set)
				equalFiles(t, filepath.Join(out, "global_step3"), filepath.Join(golden, "global_step3"))
			})
		}
	}
}

// equalFiles checks that a tag folder has every file that the golden has. (The
// golden of ZeRO-3 keeps the model file of one rank only.)
func equalFiles(t *testing.T, got, want string) {
	t.Helper()
	list, err := os.ReadDir(want)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if _, err := os.Stat(filepath.Join(got, e.Name())); err != nil {
			t.Errorf("file %s is missing", e.Name())
		}
	}
}

// equalShapes compares names, order and local shapes as the model files list
// them.
func equalShapes(t *testing.T, got, want *atom.Checkpoint) {
	t.Helper()
	for i, w := range want.Models {
		if w.Root == nil || i >= len(got.Models) || got.Models[i].Root == nil {
			continue
		}
		a, _ := got.Models[i].Root.Get("param_shapes")
		b, _ := w.Root.Get("param_shapes")
		if g, w := show(a), show(b); g != w {
			t.Errorf("%s: param_shapes\n%s\nthe golden has\n%s", want.Models[i].File, g, w)
		}
	}
}

// equalOracle compares every state with the recorded truth: the shards that
// each model-parallel rank really held.
func equalOracle(t *testing.T, c *atom.Checkpoint, dir string, set setting) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "oracle", "oracle_mp_rank_*.safetensors"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no oracle in %s", dir)
	}
	n, tp := 0, max(set.TP, 1)
	r := engine.NewReader(c)
	defer r.Close()
	for mp, file := range files {
		o := open(t, file, OpenOptions{})
		or := engine.NewReader(o)
		defer or.Close()
		for _, w := range o.Params {
			name, state, _ := strings.Cut(w.Name, "|")
			p := c.Param(name)
			if p == nil {
				t.Errorf("%s is missing", name)
				continue
			}
			if pp := mp / tp; pp > 0 && len(p.Stages) > 1 {
				continue // a tied copy: the first stage counts
			}
			if p.State(state) == nil {
				t.Errorf("%s has no %s", name, state)
				continue
			}
			views, err := p.Rule.Cut(p.Shape, tp, w.Shape[0]*int64(tp))
			if err != nil {
				t.Fatal(err)
			}
			equalShard(t, w.Name, load(t, r, p.State(state)), views[mp%tp], load(t, or, w.State(atom.Module)), p.State(state).DType.Size())
			n++
		}
	}
	if n == 0 {
		t.Error("nothing was compared with the oracle")
	}
}

// equalShard compares the real elements of a shard.
func equalShard(t *testing.T, name string, logical []byte, v geometry.View, shard []byte, size int) {
	t.Helper()
	if int(geometry.Numel(v.Local))*size != len(shard) {
		t.Errorf("%s: the oracle has %d bytes, the layout gives shape %v", name, len(shard), v.Local)
		return
	}
	w := v.Walk()
	for pos, end := int64(0), geometry.Numel(v.Local); pos < end; {
		to, n := w.Next(pos)
		if to >= 0 {
			a := logical[int(to)*size : int(to+n)*size]
			b := shard[int(pos)*size : int(pos+n)*size]
			if !bytes.Equal(a, b) {
				t.Errorf("%s differs from the oracle in elements %d to %d", name, pos, pos+n)
				return
			}
		}
		pos += n
	}
}

func TestSourcesEqualOracle(t *testing.T) {
	root := casesDir(t)
	for _, name := range caseNames(t) {
		t.Run(name, func(t *testing.T) {
			set := readSetting(t, filepath.Join(root, name, "case.json"))
			src := open(t, filepath.Join(root, name, "source"), OpenOptions{})
			if set.Experts > 0 {
				equalExperts(t, src, filepath.Join(root, name), set)
				return
			}
			equalOracle(t, src, filepath.Join(root, name), set)
		})
	}
}

// equalExperts compares a mixture of experts with its oracle: one file per
// expert-parallel rank, with local numbers.
func equalExperts(t *testing.T, c *atom.Checkpoint, dir string, set setting) {
	t.Helper()
	r := engine.NewReader(c)
	defer r.Close()
	n := 0
	for e := range set.EP {
		o := open(t, filepath.Join(dir, "oracle", "oracle_ep_rank_0"+string(rune('0'+e))+".safetensors"), OpenOptions{})
		or := engine.NewReader(o)
		defer or.Close()
		for _, w := range o.Params {
			name, state, _ := strings.Cut(w.Name, "|")
			name = globalExpert(name, e*set.Experts/set.EP)
			p := c.Param(name)
			if p == nil || p.State(state) == nil {
				t.Errorf("%s, %s is missing", name, state)
				continue
			}
			if !bytes.Equal(load(t, r, p.State(state)), load(t, or, w.State(atom.Module))) {
				t.Errorf("%s, %s differs from the oracle", name, state)
			}
			n++
		}
	}
	if n == 0 {
		t.Error("nothing was compared")
	}
}

func globalExpert(name string, first int) string {
	const mark = "deepspeed_experts."
	i := strings.Index(name, mark)
	if i < 0 {
		return name
	}
	i += len(mark)
	return name[:i] + string(rune('0'+int(name[i]-'0')+first)) + name[i+1:]
}
