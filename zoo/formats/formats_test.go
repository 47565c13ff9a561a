package formats

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/fixture"
	"github.com/lathe-ml/lathe/zoo/formats/npz"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

func TestTable(t *testing.T) {
	s := fixture.Store(t, fixture.Dir(t, "checkpoints/formats"))
	for name, want := range map[string]string{
		"all_dtypes.safetensors": "safetensors", "misc_zip_proto4.pt": "torch", "misc_legacy_proto2.pt": "torch",
		"hf_sharded_bin/pytorch_model-00001-of-00002.bin": "torch",
	} {
		f, err := Of(s, name)
		if err != nil || f.Name != want {
			t.Errorf("%s: %v %v, want %s", name, f, err, want)
			continue
		}
		list, err := Tensors(s, name)
		if err != nil || len(list) < 4 {
			t.Errorf("%s: %d tensors, %v", name, len(list), err)
		}
		if err := readAll(s, list); err != nil {
			t.Error(err)
		}
	}
	if _, err := Tensors(s, "misc.expect.json"); err == nil || !strings.Contains(err.Error(), "no weight file") {
		t.Errorf("JSON: %v", err)
	}
	m := fixture.NewMemory(nil)
	p, err := npz.NewPlan([]weights.Tensor{{Name: "a", DType: tensor.F32, Shape: []int{2}}})
	if err != nil {
		t.Fatal(err)
	}
	w, err := m.Create("d/x.npz", p.Size)
	if err != nil {
		t.Fatal(err)
	}
	fill := p.Begin(w)
	if err := fill.WriteAt(0, []byte("8 bytes!"), 0); err != nil {
		t.Fatal(err)
	}
	if err := fill.Close(); err != nil {
		t.Fatal(err)
	}
	if list, err := Tensors(m, "d/x.npz"); err != nil || list[0].Name != "a" {
		t.Errorf("npz: %v %v", list, err)
	}
	x := torch.NewDict("w", torch.NewTensor(tensor.F32, []int{2}, bytes.NewReader([]byte("8 bytes!"))))
	if err := torch.Save(m, "d/weights", x, torch.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if list, err := Tensors(m, "d/weights"); err != nil || list[0].Name != "w" || list[0].File != "d/weights" {
		t.Errorf("torch without extension: %v %v", list, err)
	}
	if list, err := m.List("d"); err != nil || len(list) != 2 {
		t.Errorf("%v %v", list, err)
	}
}
