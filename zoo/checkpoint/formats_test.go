package checkpoint

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
)

// TestConsolidatedEqualsGolden compares our consolidated weights with those of
// DeepSpeed's zero_to_fp32, file against file.
func TestConsolidatedEqualsGolden(t *testing.T) {
	root := casesDir(t)
	n := 0
	for _, name := range caseNames(t) {
		golden := filepath.Join(root, name, "consolidated_fp32_golden", "pytorch_model.bin")
		if _, err := os.Stat(golden); err != nil {
			continue
		}
		n++
		t.Run(name, func(t *testing.T) {
			src := open(t, filepath.Join(root, name, "source"), OpenOptions{})
			want := open(t, golden, OpenOptions{})
			for _, target := range []Target{{Format: Torch, File: "m.bin"}, {Format: Safetensors, File: "m.safetensors"}} {
				out := filepath.Join(t.TempDir(), target.File)
				convert(t, src, out, target)
				got := open(t, out, OpenOptions{})
				c, err := Compare(context.Background(), want, got, CompareOptions{})
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range c.Differences {
					// DeepSpeed loses tied names that 0.9 did not record.
					if d.Change != "only-in-b" || src.Param(d.Param) == nil {
						t.Errorf("%+v", d)
					}
				}
				if c.Tensors != len(want.Params) || c.Tensors < 20 {
					t.Errorf("%d of %d tensors were compared", c.Tensors, len(want.Params))
				}
			}
		})
	}
	if n == 0 {
		t.Error("there is no golden")
	}
}

// TestOtherFormats takes a training checkpoint through DCP and sharded Hugging
// Face files.
func TestOtherFormats(t *testing.T) {
	root := casesDir(t)
	for _, name := range []string{"z1_tp2_dp2_mpu", "z3_dp2_bf16_tied_frozen", "z1_dp4_moe_ep2"} {
		t.Run(name, func(t *testing.T) {
			src := open(t, filepath.Join(root, name, "source"), OpenOptions{})
			dir := t.TempDir()
			convert(t, src, filepath.Join(dir, "dcp"), Target{Format: DCP, MaxShard: 40_000})
			dcp := open(t, filepath.Join(dir, "dcp"), OpenOptions{})
			equalWeights(t, dcp, src)
			for _, p := range src.Params {
				q := dcp.Param(p.Name)
				for _, s := range p.States {
					if s.Name == atom.FP32 || s.Name == atom.Module {
						continue
					}
					if q.State(s.Name) == nil || !bytes.Equal(bytesOf(t, dcp, q.State(s.Name)), bytesOf(t, src, s.Tensor)) {
						t.Errorf("%s, %s differs in DCP", p.Name, s.Name)
					}
				}
			}
			convert(t, src, filepath.Join(dir, "hf"), Target{Format: Safetensors, MaxShard: 10_000})
			if _, err := os.Stat(filepath.Join(dir, "hf", "model.safetensors.index.json")); err != nil {
				t.Error(err)
			}
			equalWeights(t, open(t, filepath.Join(dir, "hf"), OpenOptions{}), src)
			convert(t, dcp, filepath.Join(dir, "again"), Target{Format: Universal})
			equalWeights(t, open(t, filepath.Join(dir, "again"), OpenOptions{}), src)
		})
	}
}

func bytesOf(t testing.TB, c *atom.Checkpoint, x *atom.Tensor) []byte {
	t.Helper()
	b, err := engine.Load(c, x)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// equalWeights compares the best weights of all trained parameters.
func equalWeights(t *testing.T, got, want *atom.Checkpoint) {
	t.Helper()
	for _, p := range want.Params {
		if p.Kind != atom.Trained {
			continue
		}
		q := got.Param(p.Name)
		if q == nil || q.Weight() == nil {
			t.Errorf("%s is missing", p.Name)
			continue
		}
		if !bytes.Equal(bytesOf(t, got, q.Weight()), bytesOf(t, want, p.Weight())) {
			t.Errorf("%s differs", p.Name)
		}
	}
}

// TestFixturesOfOtherPrograms opens the recorded files of other formats.
func TestFixturesOfOtherPrograms(t *testing.T) {
	root := filepath.Join(casesDir(t), "formats")
	for _, f := range []struct {
		place  string
		params int
	}{
		{"dcp_modern_handmade", 0}, {"mcore_torch_dist_handmade", 0}, {"hf_sharded_bin", 0}, {"hf_sharded_safetensors", 0},
		{"single_tensor.pt", 1}, {"misc_zip_proto2.pt", 0}, {"misc_zip_proto5.pt", 0}, {"misc_legacy_proto2.pt", 0}, {"all_dtypes.safetensors", 0},
	} {
		t.Run(f.place, func(t *testing.T) {
			c := open(t, filepath.Join(root, f.place), OpenOptions{})
			if f.params > 0 && len(c.Params) != f.params {
				t.Errorf("%d parameters, want %d", len(c.Params), f.params)
			}
			out := filepath.Join(t.TempDir(), "m.safetensors")
			convert(t, c, out, Target{Format: Safetensors, File: "m.safetensors"})
			got := open(t, out, OpenOptions{})
			for _, p := range c.Params {
				q := got.Param(p.Name)
				if q == nil || !bytes.Equal(bytesOf(t, got, q.Weight()), bytesOf(t, c, p.Weight())) {
					t.Errorf("%s came back otherwise", p.Name)
				}
			}
		})
	}
}

// TestCast checks the rounding of a cast against the converter of tensors.
func TestCast(t *testing.T) {
	root := casesDir(t)
	src := open(t, filepath.Join(root, "z1_dp2_fp32", "source"), OpenOptions{})
	for _, d := range []tensor.DType{tensor.BF16, tensor.F16, tensor.F64} {
		out := filepath.Join(t.TempDir(), "m.safetensors")
		convert(t, src, out, Target{Format: Safetensors, File: "m.safetensors", DType: d})
		got := open(t, out, OpenOptions{})
		for _, p := range src.Params {
			x := tensor.New(tensor.F32, int(p.Weight().Numel()))
			copy(x.Bytes(), bytesOf(t, src, p.Weight()))
			if want := tensor.Convert(x, d).Bytes(); !bytes.Equal(bytesOf(t, got, got.Param(p.Name).Weight()), want) {
				t.Errorf("%s as %s differs", p.Name, d)
			}
		}
	}
}
