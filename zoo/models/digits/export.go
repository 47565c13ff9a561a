package digits

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/atomicfile"
)

// The opset and IR version of the file: old enough for every runtime in use.
const (
	opset     = 13
	irVersion = 8
)

// sampleSeed draws the images that stand beside the model; no training step
// saw them.
const sampleSeed = 29

// ONNX is the network as a model.
func (m *Model) ONNX() *onnxfile.Model {
	g := &ir.Graph{Level: ir.ONNX, Name: "digits", Doc: "reads a digit from a 28×28 grey image, bright ink on dark ground, values 0 to 1"}
	x := &ir.Value{Name: "image", Type: ir.TensorType(tensor.F32, 1, 1, Size, Size)}
	g.Inputs = []*ir.Value{x}
	constant := func(name string, v []float32, shape ...int) *ir.Value {
		c := ir.NewConst(name, tensor.Of(v, shape...))
		g.Inits = append(g.Inits, c)
		return c
	}
	node := func(op, name string, shape []int, attrs []ir.Attr, in ...*ir.Value) *ir.Value {
		n := &ir.Node{Op: op, Name: name, Inputs: in, Attrs: attrs}
		o := &ir.Value{Name: name, Type: ir.TensorType(tensor.F32, shape...), Def: n}
		n.Outputs = []*ir.Value{o}
		g.Nodes = append(g.Nodes, n)
		return o
	}
	block := func(v *ir.Value, k, in, out, side int, w, b []float32) *ir.Value {
		i := func(s string) string { return fmt.Sprintf("%s%d", s, k) }
		v = node("Conv", i("conv"), []int{1, out, side, side},
			[]ir.Attr{{Name: "kernel_shape", Val: []int64{3, 3}}, {Name: "pads", Val: []int64{1, 1, 1, 1}}},
			v, constant(i("conv")+".weight", w, out, in, 3, 3), constant(i("conv")+".bias", b, out))
		v = node("Relu", i("relu"), []int{1, out, side, side}, nil, v)
		return node("MaxPool", i("pool"), []int{1, out, side / 2, side / 2},
			[]ir.Attr{{Name: "kernel_shape", Val: []int64{2, 2}}, {Name: "strides", Val: []int64{2, 2}}}, v)
	}
	trans := []ir.Attr{{Name: "transB", Val: int64(1)}}
	v := block(x, 1, 1, channels1, Size, m.p.conv1, m.p.bias1)
	v = block(v, 2, channels1, channels2, half, m.p.conv2, m.p.bias2)
	v = node("Flatten", "flat", []int{1, features}, nil, v)
	v = node("Gemm", "fc1", []int{1, hidden}, trans, v, constant("fc1.weight", m.p.fc1, hidden, features), constant("fc1.bias", m.p.bias3, hidden))
	v = node("Relu", "relu3", []int{1, hidden}, nil, v)
	v = node("Gemm", "fc2", []int{1, Classes}, trans, v, constant("fc2.weight", m.p.fc2, Classes, hidden), constant("fc2.bias", m.p.bias4, Classes))
	v = node("Softmax", "scores", []int{1, Classes}, []ir.Attr{{Name: "axis", Val: int64(1)}}, v)
	g.Outputs = []*ir.Value{v}
	file := onnxfile.New(g, opset)
	file.IRVersion, file.Producer = irVersion, "lathe"
	return file
}

// Input is an image as the model takes it.
func Input(img []uint8) *tensor.Tensor {
	t := tensor.New(tensor.F32, 1, 1, Size, Size)
	for i, v := range img {
		t.SetFloat(i, float64(v)/255)
	}
	return t
}

// Samples are the images that stand beside the model, one per digit.
func Samples() [Classes][]uint8 {
	src := NewSource(sampleSeed)
	var all [Classes][]uint8
	for d := range all {
		all[d] = src.Digit(d)
	}
	return all
}

// Write writes the model with its labels, sample images and a recorded data
// set into a folder, in the layout of ONNX's own test cases.
func (m *Model) Write(dir string) error {
	data := filepath.Join(dir, "test_data_set_0")
	for _, d := range []string{filepath.Join(dir, "images"), data} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			return err
		}
	}
	file := m.ONNX()
	if err := file.Write(filepath.Join(dir, "model.onnx"), onnxfile.WriteOptions{}); err != nil {
		return err
	}
	samples := Samples()
	in := ir.TensorData(Input(samples[3]))
	out, err := onnx.Eval(file.Graph, map[string]int{"": opset}, []*ir.Data{in}, nil)
	if err != nil {
		return err
	}
	for _, r := range []struct {
		file, name string
		data       *ir.Data
	}{{"input_0.pb", "image", in}, {"output_0.pb", "scores", out[0]}} {
		b, err := onnxfile.EncodeData(r.name, r.data)
		if err != nil {
			return err
		}
		if err := atomicfile.WriteBytes(filepath.Join(data, r.file), b); err != nil {
			return err
		}
	}
	var labels strings.Builder
	for d, img := range samples {
		fmt.Fprintf(&labels, "%d\n", d)
		var b bytes.Buffer
		if err := png.Encode(&b, &image.Gray{Pix: img, Stride: Size, Rect: image.Rect(0, 0, Size, Size)}); err != nil {
			return err
		}
		if err := atomicfile.WriteBytes(filepath.Join(dir, "images", fmt.Sprintf("digit-%d.png", d)), b.Bytes()); err != nil {
			return err
		}
	}
	return atomicfile.WriteBytes(filepath.Join(dir, "labels.txt"), []byte(labels.String()))
}
