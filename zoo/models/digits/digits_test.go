package digits

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/backends/ort"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/data"
)

var full = flag.Bool("full", false, "train the whole model again and compare it with the one that ships (about 20 s of processor time)")

const shipped = "../../../testdata/models/digits"

func load(t *testing.T) (*onnxfile.Model, *Model) {
	t.Helper()
	file, err := onnxfile.Read(filepath.Join(shipped, "model.onnx"), onnxfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := &Model{newParams()}
	names := []string{"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
	for i, p := range m.p.all() {
		for _, v := range file.Graph.Inits {
			if v.Name == names[i] {
				if copy(p, tensor.As[float32](v.Const)) != len(p) || v.Const.Len() != len(p) {
					t.Fatalf("%s has %d elements", v.Name, v.Const.Len())
				}
			}
		}
	}
	return file, m
}

// firstSteps is the checksum of the weights after the first steps of the
// recipe: the part of "bit for bit" that every test run checks.
const firstSteps = "440756190d98789e829f86d741b6d743355e6738122841bb6568b8ce0b34bbd7"

func TestFirstSteps(t *testing.T) {
	h := sha256.New()
	for _, p := range Train(Seed, 5, Steps, nil).p.all() {
		h.Write(tensor.Of(p, len(p)).Bytes())
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != firstSteps {
		t.Errorf("the weights after 5 steps have the checksum %s, recorded is %s: training is not what it was, or not deterministic", got, firstSteps)
	}
}

// TestRegenerate trains the whole model again.
func TestRegenerate(t *testing.T) {
	if !*full {
		t.Skip("trains for about 20 s of processor time; run with -full")
	}
	dir := t.TempDir()
	if err := Train(Seed, Steps, Steps, nil).Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"model.onnx", "labels.txt", "test_data_set_0/input_0.pb", "test_data_set_0/output_0.pb"} {
		got, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(shipped, f))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what ships (%v)", f, err)
		}
	}
}

// TestGraph holds that the file is what the exporter writes from its weights.
func TestGraph(t *testing.T) {
	_, m := load(t)
	got, err := m.ONNX().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(shipped, "model.onnx"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the exporter writes another file (%v)", err)
	}
}

// TestAccuracy reads images that no training step saw.
func TestAccuracy(t *testing.T) {
	_, m := load(t)
	if a := m.Accuracy(Seed+1, 2000); a < 0.98 {
		t.Errorf("%.2f %% are read right", 100*a)
	}
}

// TestSamples holds that the images are those that the package draws, that the
// documented preprocessing gives what the model was trained on, and that the
// evaluator and the trainer's own network agree on them, and with the labels.
func TestSamples(t *testing.T) {
	file, m := load(t)
	labels, err := data.ReadLabels(filepath.Join(shipped, "labels.txt"))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(shipped, "README.md"))
	if err != nil || !strings.Contains(string(readme), "--preprocess "+recipe) {
		t.Errorf("README.md does not name the recipe %s (%v)", recipe, err)
	}
	p, err := data.ParsePreprocess(recipe)
	if err != nil {
		t.Fatal(err)
	}
	for d, img := range Samples() {
		b, err := os.ReadFile(filepath.Join(shipped, "images", fmt.Sprintf("digit-%d.png", d)))
		if err != nil {
			t.Fatal(err)
		}
		pic, err := png.Decode(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(pic.(*image.Gray).Pix, img) {
			t.Errorf("digit-%d.png is not what the package draws", d)
		}
		x, err := data.ReadImage(b, p)
		if err != nil {
			t.Fatal(err)
		}
		out, err := onnx.Eval(file.Graph, map[string]int{"": opset}, []*ir.Data{ir.TensorData(x)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range m.Predict(img) {
			if got := out[0].Tensor.Float(i); math.Abs(got-float64(v)) > 1e-5 {
				t.Errorf("digit %d: score %d is %v, the network says %v", d, i, got, v)
			}
		}
		if best := data.Top(out[0].Tensor, labels, 1)[0]; best.Label != fmt.Sprint(d) || best.Score < 0.9 {
			t.Errorf("digit %d is read as %v", d, best)
		}
	}
}

// recipe is the documented preprocessing.
const recipe = "resize=28x28,gray,scale=1/255"

// TestPeer compares the recorded output with ONNX Runtime's.
func TestPeer(t *testing.T) {
	lib, err := ort.Find("", os.Getenv("LATHE_CACHE"))
	if err != nil {
		t.Skipf("%v; %s", err, fault.HintOf(err))
	}
	r, err := ort.Open(lib)
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.LoadFile(filepath.Join(shipped, "model.onnx"), ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	file, _ := load(t)
	set, err := conformance.ReadSet(file, filepath.Join(shipped, "test_data_set_0"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Run([]*tensor.Tensor{set.Inputs[0].Tensor})
	if err != nil {
		t.Fatal(err)
	}
	if err := conformance.Compare([]*ir.Data{ir.TensorData(out[0])}, set.Outputs, conformance.Tolerance{RTol: 1e-4, ATol: 1e-6}, false); err != nil {
		t.Error(err)
	}
}

// TestGradients compares the gradients with central differences. The network
// computes in float32, and a step may cross a kink of ReLU, so the bound is loose; what is
// summed wrong, or left out, is off by much more.
func TestGradients(t *testing.T) {
	src := NewSource(9)
	p := initial(src)
	img, class := src.Next()
	tp, g := newTape(), newParams()
	loss := func() float64 {
		p.forward(img, tp)
		return -math.Log(float64(tp.prob[class]))
	}
	loss()
	p.backward(class, tp, g)
	ws, gs := p.all(), g.all()
	for k := range ws {
		worst, norm := 0.0, 0.0
		for j := range 40 {
			i := j * len(ws[k]) / 40
			const h = 2e-4
			old := ws[k][i]
			ws[k][i] = old + h
			up := loss()
			ws[k][i] = old - h
			down := loss()
			ws[k][i] = old
			worst = max(worst, math.Abs((up-down)/(2*h)-float64(gs[k][i])))
			norm = max(norm, math.Abs(float64(gs[k][i])))
		}
		if norm == 0 || worst > 0.06*norm {
			t.Errorf("tensor %d: gradients up to %v are off by %v", k, norm, worst)
		}
	}
}
