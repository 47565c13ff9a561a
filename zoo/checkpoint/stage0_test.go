package checkpoint

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/deepspeed"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// TestStage0 puts the optimizer into the model file, as training without ZeRO
// does, and reshards it to ZeRO-3.
func TestStage0(t *testing.T) {
	want := open(t, filepath.Join(casesDir(t), "z1_dp2_fp32", "source"), OpenOptions{})
	dir := copyCase(t, "z1_dp2_fp32")
	for _, f := range optimFiles(t, dir) {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	rewrite(t, filepath.Join(dir, "global_step3", "mp_rank_00_model_states.pt"), func(root *torch.Dict) {
		state, numbers := torch.NewDict(), torch.NewList()
		for _, p := range want.Params {
			if p.Kind != atom.Trained {
				continue
			}
			n := int64(state.Len())
			st := torch.NewDict("step", int64(3))
			for _, s := range []string{"exp_avg", "exp_avg_sq"} {
				st.Set(s, torch.NewTensor(p.State(s).DType, atom.Ints(p.Shape), bytes.NewReader(bytesOf(t, want, p.State(s)))))
			}
			state.Set(n, st)
			numbers.Items = append(numbers.Items, n)
		}
		root.Set("optimizer", torch.NewDict("state", state, "param_groups", torch.NewList(torch.NewDict("lr", 0.1, "params", numbers))))
	})
	src := open(t, dir, OpenOptions{})
	if src.Topology.Zero != 0 || len(src.Groups) != 1 {
		t.Errorf("topology %+v, %d groups", src.Topology, len(src.Groups))
	}
	out := filepath.Join(t.TempDir(), "out")
	convert(t, src, out, Target{Format: DeepSpeed, Layout: deepspeed.Layout{DP: 3, Zero: 3}})
	got := open(t, out, OpenOptions{})
	equalStates(t, got, want)
}
