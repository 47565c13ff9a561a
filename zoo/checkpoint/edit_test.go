package checkpoint

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/formats/safetensors"
)

func TestEdits(t *testing.T) {
	src := filepath.Join(casesDir(t), "z1_dp2_fp32", "source")
	edit := func(e Edit) *atom.Checkpoint {
		c := open(t, src, OpenOptions{})
		if err := e.Apply(c); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "out")
		convert(t, c, out, Target{Format: Universal})
		return open(t, out, OpenOptions{})
	}
	whole := open(t, src, OpenOptions{})
	c := edit(Edit{Only: []string{`layers\.0\.`, "embedding"}, Exclude: []string{`.*bias`}, DropStates: []string{"exp_avg_sq"},
		Rename: []string{`^layers\.(\d+)\.=h.\1.`, `self_attention=attn`}})
	if p := c.Param("h.0.attn.dense.weight"); p == nil || p.State("exp_avg") == nil || p.State("exp_avg_sq") != nil {
		t.Errorf("renamed parameter: %+v", p)
	} else if old := whole.Param("layers.0.self_attention.dense.weight"); string(bytesOf(t, c, p.Weight())) != string(bytesOf(t, whole, old.Weight())) {
		t.Error("a renamed parameter has other weights")
	}
	for _, p := range c.Params {
		if p.Name == "lm_head.weight" || filepath.Ext(p.Name) == ".bias" || len(p.Name) > 6 && p.Name[:6] == "layers" {
			t.Errorf("%s is there", p.Name)
		}
	}
	c = edit(Edit{DropOptimizer: true})
	if got := c.StateNames(); !slices.Equal(got, []string{"fp32"}) {
		t.Errorf("states %v", got)
	}
	for _, e := range []Edit{
		{Only: []string{"nothing"}}, {Rename: []string{"x"}}, {Rename: []string{`.*=same`}}, {Rename: []string{`nothing=x`}},
		{DropStates: []string{"exp_avq"}}, {Exclude: []string{`(?!a)b`}},
	} {
		if err := e.Apply(open(t, src, OpenOptions{})); fault.KindOf(err) != fault.Usage {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

// writeTensors writes float32 matrices as a safetensors file.
func writeTensors(t *testing.T, file string, names []string, shapes [][]int, values [][]float32) {
	t.Helper()
	var list []weights.Tensor
	for i, n := range names {
		list = append(list, weights.Tensor{Name: n, DType: tensor.F32, Shape: shapes[i]})
	}
	p, err := safetensors.NewPlan(list, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fill := p.Begin(f)
	for i, v := range values {
		var b []byte
		for _, x := range v {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
		if err := fill.WriteAt(i, b, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := fill.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMergeLoRA works out one update by hand: W is 2x3, B is 2x1, A is 1x3,
// alpha 4 and rank 1, so that W += 4·B·A.
func TestMergeLoRA(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "base.safetensors")
	writeTensors(t, base, []string{"l.q.weight", "l.k.weight"}, [][]int{{2, 3}, {2, 3}},
		[][]float32{{1, 2, 3, 4, 5, 6}, {7, 7, 7, 7, 7, 7}})
	adapter := filepath.Join(dir, "adapter")
	if err := os.Mkdir(adapter, 0o777); err != nil {
		t.Fatal(err)
	}
	writeTensors(t, filepath.Join(adapter, "adapter_model.safetensors"),
		[]string{"base_model.model.l.q.lora_A.weight", "base_model.model.l.q.lora_B.weight"}, [][]int{{1, 3}, {2, 1}},
		[][]float32{{1, 0.5, -1}, {2, -0.25}})
	config := func(text string) {
		if err := os.WriteFile(filepath.Join(adapter, "adapter_config.json"), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	config(`{"peft_type":"LORA","r":1,"lora_alpha":4}`)
	c := open(t, base, OpenOptions{})
	if err := MergeLoRA(c, adapter); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "merged.safetensors")
	convert(t, c, out, Target{Format: Safetensors, File: "merged.safetensors"})
	got := open(t, out, OpenOptions{})
	// row 0: 4·2·(1, 0.5, -1) = (8, 4, -8); row 1: 4·-0.25·(1, 0.5, -1) = (-1, -0.5, 1)
	want := []float32{9, 6, -5, 3, 4.5, 7}
	if v := floats(bytesOf(t, got, got.Param("l.q.weight").Weight())); !slices.Equal(v, want) {
		t.Errorf("merged %v, want %v", v, want)
	}
	if v := floats(bytesOf(t, got, got.Param("l.k.weight").Weight())); !slices.Equal(v, []float32{7, 7, 7, 7, 7, 7}) {
		t.Errorf("the other weight became %v", v)
	}
	for text, kind := range map[string]fault.Kind{
		`{"peft_type":"IA3"}`: fault.Unsupported, `{"use_dora":true}`: fault.Unsupported,
		`{"modules_to_save":["lm_head"]}`: fault.Unsupported, `{`: fault.BadModel,
	} {
		config(text)
		if err := MergeLoRA(open(t, base, OpenOptions{}), adapter); fault.KindOf(err) != kind {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func floats(b []byte) []float32 {
	var out []float32
	for i := 0; i < len(b); i += 4 {
		out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(b[i:])))
	}
	return out
}

// TestONNX reads a model's initializers and puts other weights into them.
func TestONNX(t *testing.T) {
	dir := t.TempDir()
	w := &ir.Value{Name: "w", Type: ir.TensorType(tensor.F32, 2, 2), Const: tensor.Of([]float32{1, 2, 3, 4}, 2, 2)}
	x := &ir.Value{Name: "x", Type: ir.TensorType(tensor.F32, 2, 2)}
	y := &ir.Value{Name: "y", Type: ir.TensorType(tensor.F32, 2, 2)}
	n := &ir.Node{Op: "Add", Name: "add", Inputs: []*ir.Value{x, w}, Outputs: []*ir.Value{y}}
	y.Def = n
	g := &ir.Graph{Level: ir.ONNX, Name: "g", Inputs: []*ir.Value{x}, Outputs: []*ir.Value{y}, Nodes: []*ir.Node{n}, Inits: []*ir.Value{w}}
	model := filepath.Join(dir, "m.onnx")
	if err := onnxfile.New(g, 13).Write(model, onnxfile.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	c := open(t, model, OpenOptions{})
	if v := floats(bytesOf(t, c, c.Param("w").Weight())); !slices.Equal(v, []float32{1, 2, 3, 4}) {
		t.Errorf("initializer %v", v)
	}
	other := filepath.Join(dir, "other.safetensors")
	writeTensors(t, other, []string{"weight"}, [][]int{{2, 2}}, [][]float32{{5, 6, 7, 8}})
	src := open(t, other, OpenOptions{})
	out := filepath.Join(dir, "new.onnx")
	if _, err := IntoONNX(src, model, out, false); fault.KindOf(err) != fault.BadModel {
		t.Errorf("a parameter without an initializer: %v", err)
	}
	if err := (Edit{Rename: []string{"^weight=w"}}).Apply(src); err != nil {
		t.Fatal(err)
	}
	if _, err := IntoONNX(src, model, out, false); err != nil {
		t.Fatal(err)
	}
	got := open(t, out, OpenOptions{})
	if v := floats(bytesOf(t, got, got.Param("w").Weight())); !slices.Equal(v, []float32{5, 6, 7, 8}) {
		t.Errorf("the new model has %v", v)
	}
	if _, err := IntoONNX(src, model, out, false); fault.KindOf(err) != fault.Usage {
		t.Errorf("an output that exists: %v", err)
	}
}
