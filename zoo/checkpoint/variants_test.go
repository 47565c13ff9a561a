package checkpoint

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/deepspeed"
	"github.com/lathe-ml/lathe/zoo/checkpoint/synthetic"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// rewrite changes the values of a torch file.
func rewrite(t *testing.T, file string, change func(root *torch.Dict)) {
	t.Helper()
	s, err := weights.OpenOS(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f, c, err := torch.OpenIn(s, filepath.Base(file), torch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	root := f.Root.(*torch.Dict)
	change(root)
	if err := torch.Save(s, "rewritten", root, torch.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := os.Rename(filepath.Join(filepath.Dir(file), "rewritten"), file); err != nil {
		t.Fatal(err)
	}
}

func inner(d *torch.Dict, keys ...string) *torch.Dict {
	for _, k := range keys {
		v, _ := d.Get(k)
		d, _ = v.(*torch.Dict)
	}
	return d
}

// optimFiles lists the optimizer files of a source.
func optimFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "global_step3", "*_optim_states.pt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no optimizer files in %s", dir)
	}
	return files
}

// TestElastic gives real checkpoints the form of elastic_checkpoint: a list of
// states without padding, the step elsewhere, no param_groups. DeepSpeed's
// converters die on it.
func TestElastic(t *testing.T) {
	for _, name := range []string{"z1_dp2_fp32", "z1_dp4_fp32_padding"} {
		for _, stepPlace := range []string{"state", "beside"} {
			t.Run(name+" step in "+stepPlace, func(t *testing.T) {
				dir := copyCase(t, name)
				for _, file := range optimFiles(t, dir) {
					rewrite(t, file, func(root *torch.Dict) { elastic(t, root, stepPlace == "beside") })
				}
				got := open(t, dir, OpenOptions{})
				want := open(t, filepath.Join(casesDir(t), name, "source"), OpenOptions{})
				equalStates(t, got, want)
				if len(got.Groups) != len(want.Groups) {
					t.Errorf("%d groups, want %d", len(got.Groups), len(want.Groups))
				}
				for _, p := range got.Params {
					if v, ok := deepspeed.ScalarValue(p.Step); p.Kind == atom.Trained && (!ok || v != 3) {
						t.Errorf("%s: step %v", p.Name, p.Step)
					}
				}
				out := filepath.Join(t.TempDir(), "out")
				convert(t, got, out, Target{Format: Universal})
				equalStates(t, open(t, out, OpenOptions{}), want)
			})
		}
	}
}

func elastic(t *testing.T, root *torch.Dict, beside bool) {
	o := inner(root, "optimizer_state_dict")
	paddings, _ := o.Get("group_paddings")
	base := inner(o, "base_optimizer_state")
	list := torch.NewList()
	for g := range paddings.(*torch.List).Items {
		v, _ := inner(base, "state").Get(int64(g))
		st := torch.NewDict()
		pad := int(paddings.(*torch.List).Items[g].(int64))
		for _, kv := range v.(*torch.Dict).Pairs() {
			x := kv.Value.(*torch.Tensor)
			if len(x.Shape) == 1 { // Python's [:n-padding], also where that is negative
				n := x.Shape[0] - pad
				if n < 0 {
					n = max(n+x.Shape[0], 0)
				}
				st.Set(kv.Key, torch.ViewOf(x.Storage, []int{n}, 0))
			} else if !beside {
				st.Set(kv.Key, x)
			}
		}
		list.Items = append(list.Items, st)
	}
	o.Set("base_optimizer_state", list)
	if beside {
		o.Set("base_optimizer_state_step", int64(3))
	}
}

// TestWithoutMappings drops param_slice_mappings: the layout is computed.
func TestWithoutMappings(t *testing.T) {
	for _, name := range []string{"z1_dp4_fp32_padding", "z1_dp2_bf16optimizer", "z1_tp2_pp2_dp1_megatron"} {
		dir := copyCase(t, name)
		for _, file := range optimFiles(t, dir) {
			rewrite(t, file, func(root *torch.Dict) { inner(root, "optimizer_state_dict").Delete("param_slice_mappings") })
		}
		equalStates(t, open(t, dir, OpenOptions{}), open(t, filepath.Join(casesDir(t), name, "source"), OpenOptions{}))
	}
}

// TestStepInParamGroups moves the step to where FusedAdam keeps it; a native
// target keeps it there.
func TestStepInParamGroups(t *testing.T) {
	dir := copyCase(t, "z1_dp2_two_groups")
	for _, file := range optimFiles(t, dir) {
		rewrite(t, file, func(root *torch.Dict) {
			base := inner(root, "optimizer_state_dict", "base_optimizer_state")
			groups, _ := base.Get("param_groups")
			for g, v := range groups.(*torch.List).Items {
				st, _ := inner(base, "state").Get(int64(g))
				st.(*torch.Dict).Delete("step")
				v.(*torch.Dict).Set("step", int64(3))
			}
		})
	}
	src := open(t, dir, OpenOptions{})
	out := filepath.Join(t.TempDir(), "out")
	convert(t, src, out, Target{Format: DeepSpeed, Layout: deepspeed.Layout{DP: 3, Zero: 3}})
	for _, c := range []*atom.Checkpoint{src, open(t, out, OpenOptions{})} {
		for _, p := range c.Params {
			if v, ok := deepspeed.ScalarValue(p.Step); p.Kind == atom.Trained && (!ok || v != 3) {
				t.Errorf("%s: step %v", p.Name, p.Step)
			}
		}
		if v, ok := c.Groups[0].Get("step"); !ok || v != int64(3) {
			t.Errorf("param_groups have step %v", v)
		}
	}
}

// TestSubGroups cuts ZeRO-3 into many sub-groups, as large models have (one
// version of DeepSpeed's converter dies on them), and reads the old form in
// which a rank's sub-groups are one tensor.
func TestSubGroups(t *testing.T) {
	m := synthetic.Model{Layers: 3, Hidden: 8, FFN: 20, Vocab: 31, Positions: 5, Module: synthetic.GPT2.Module, Groups: 2, Seed: 9}
	c, err := synthetic.New(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Config = torch.NewDict("zero_optimization", torch.NewDict("stage", int64(1), "sub_group_size", int64(150)))
	dir := filepath.Join(t.TempDir(), "z3")
	convert(t, c, dir, Target{Format: DeepSpeed, Layout: deepspeed.Layout{DP: 3, Zero: 3}})
	got := open(t, dir, OpenOptions{})
	shapes, _ := got.Models[0].Root.Get("param_shapes")
	if n := len(shapes.(*torch.List).Items); n < 4 {
		t.Fatalf("%d sub-groups: the test means to have several", n)
	}
	equalStates(t, got, c)
	for i := range c.Params {
		if q := got.Param(c.Params[i].Name); q.Group != c.Params[i].Group {
			t.Errorf("%s is in group %d, was in %d", q.Name, q.Group, c.Params[i].Group)
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "global_step10", "*optim_states.pt"))
	for _, file := range files {
		rewrite(t, file, func(root *torch.Dict) { mergeFlat(t, inner(root, "optimizer_state_dict")) })
	}
	equalStates(t, open(t, dir, OpenOptions{}), c)
}

// mergeFlat joins the sub-groups of a ZeRO-3 rank into one tensor per state.
func mergeFlat(t *testing.T, o *torch.Dict) {
	t.Helper()
	join := func(list []*torch.Tensor) *torch.Tensor {
		var all []byte
		n := 0
		for _, x := range list {
			v, err := x.Load()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, v.Bytes()...)
			n += x.Shape[0]
		}
		return torch.NewTensor(list[0].DType, []int{n}, bytes.NewReader(all))
	}
	v, _ := o.Get("fp32_flat_groups")
	var fp32 []*torch.Tensor
	for _, x := range v.(*torch.List).Items {
		fp32 = append(fp32, x.(*torch.Tensor))
	}
	state := inner(o, "optimizer_state_dict", "state")
	one := torch.NewDict("step", int64(10))
	for _, name := range []string{"exp_avg", "exp_avg_sq"} {
		var list []*torch.Tensor
		for i := range fp32 {
			st, _ := state.Get(int64(i))
			x, _ := st.(*torch.Dict).Get(name)
			list = append(list, x.(*torch.Tensor))
		}
		one.Set(name, join(list))
	}
	o.Set("fp32_flat_groups", torch.NewList(join(fp32)))
	inner(o, "optimizer_state_dict").Set("state", torch.NewDict(int64(0), one))
}
