package onnxfile

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Each element type in its typed field; the values are worked out by hand from
// the format's definition.
func TestTypedDataOfEveryElementType(t *testing.T) {
	for _, c := range []struct {
		p    pb.TensorProto
		dims []int64
		want []float64
	}{
		{pb.TensorProto{DataType: 1, FloatData: []float32{1.5}}, []int64{1}, []float64{1.5}},
		{pb.TensorProto{DataType: 2, Int32Data: []int32{200}}, []int64{1}, []float64{200}},
		{pb.TensorProto{DataType: 3, Int32Data: []int32{-7}}, []int64{1}, []float64{-7}},
		{pb.TensorProto{DataType: 4, Int32Data: []int32{65535}}, []int64{1}, []float64{65535}},
		{pb.TensorProto{DataType: 5, Int32Data: []int32{-300}}, []int64{1}, []float64{-300}},
		{pb.TensorProto{DataType: 6, Int32Data: []int32{-70000}}, []int64{1}, []float64{-70000}},
		{pb.TensorProto{DataType: 7, Int64Data: []int64{1 << 40}}, []int64{1}, []float64{1 << 40}},
		{pb.TensorProto{DataType: 9, Int32Data: []int32{1, 0}}, []int64{2}, []float64{1, 0}},
		{pb.TensorProto{DataType: 10, Int32Data: []int32{0x3e00}}, []int64{1}, []float64{1.5}}, // 0 01111 1000000000
		{pb.TensorProto{DataType: 11, DoubleData: []float64{0.1}}, []int64{1}, []float64{0.1}},
		{pb.TensorProto{DataType: 12, Uint64Data: []uint64{4294967295}}, []int64{1}, []float64{4294967295}},
		{pb.TensorProto{DataType: 13, Uint64Data: []uint64{1 << 63}}, []int64{1}, []float64{1 << 63}},
		{pb.TensorProto{DataType: 16, Int32Data: []int32{0x3fc0}}, []int64{1}, []float64{1.5}}, // upper half of 0x3fc00000
		{pb.TensorProto{DataType: 17, Int32Data: []int32{0x3c}}, []int64{1}, []float64{1.5}},   // 0 0111 100, bias 7
		{pb.TensorProto{DataType: 18, Int32Data: []int32{0x44}}, []int64{1}, []float64{1.5}},   // 0 1000 100, bias 8
		{pb.TensorProto{DataType: 19, Int32Data: []int32{0x3e}}, []int64{1}, []float64{1.5}},   // 0 01111 10, bias 15
		{pb.TensorProto{DataType: 20, Int32Data: []int32{0x42}}, []int64{1}, []float64{1.5}},   // 0 10000 10, bias 16
		{pb.TensorProto{DataType: 21, Int32Data: []int32{0xf1, 0x02}}, []int64{3}, []float64{1, 15, 2}},
		{pb.TensorProto{DataType: 22, Int32Data: []int32{0xf1, 0x08}}, []int64{3}, []float64{1, -1, -8}},
		{pb.TensorProto{DataType: 23, Int32Data: []int32{0xf3}}, []int64{2}, []float64{1.5, -6}}, // 0 01 1, 1 11 1
		{pb.TensorProto{DataType: 24, Int32Data: []int32{128}}, []int64{1}, []float64{2}},        // 2^(128-127)
		{pb.TensorProto{DataType: 25, Int32Data: []int32{0xe4, 0x01}}, []int64{5}, []float64{0, 1, 2, 3, 1}},
		{pb.TensorProto{DataType: 26, Int32Data: []int32{0xe4}}, []int64{4}, []float64{0, 1, -2, -1}},
	} {
		c.p.Name, c.p.Dims = "w", c.dims
		mp := small()
		mp.Graph.Initializer = append(mp.Graph.Initializer, &c.p)
		c.p.Name = "typed"
		b := pb.Marshal(mp)
		m, err := ReadBytes(b, Options{})
		if err != nil {
			t.Errorf("type %d: %v", c.p.DataType, err)
			continue
		}
		if got := m.Graph.Inits[1].Const.Floats(); !slices.Equal(got, c.want) {
			t.Errorf("type %d: got %v, want %v", c.p.DataType, got, c.want)
		}
		if out, err := m.Bytes(); err != nil || !bytes.Equal(out, b) {
			t.Errorf("type %d: written differently: %v", c.p.DataType, err)
		}
	}
}

func TestTypedDataOutOfRange(t *testing.T) {
	for _, p := range []*pb.TensorProto{
		{DataType: 2, Dims: []int64{1}, Int32Data: []int32{256}},
		{DataType: 3, Dims: []int64{1}, Int32Data: []int32{-129}},
		{DataType: 10, Dims: []int64{1}, Int32Data: []int32{65536}},
		{DataType: 12, Dims: []int64{1}, Uint64Data: []uint64{1 << 32}},
	} {
		b := pb.Marshal(p)
		if _, err := DecodeData(b, ir.Type{}, Options{}); !fault.Is(err, fault.BadModel) || !strings.Contains(err.Error(), "beyond") {
			t.Errorf("type %d: %v", p.DataType, err)
		}
	}
}

// A sparse initializer is read as the dense tensor it stands for (indices by
// position in the flattened tensor, or by axis) and written as it was.
func TestSparseTensors(t *testing.T) {
	ints := func(dims []int64, v ...int64) *pb.TensorProto {
		return &pb.TensorProto{DataType: 7, Dims: dims, Int64Data: v}
	}
	sparse := func(idx *pb.TensorProto) *pb.SparseTensorProto {
		return &pb.SparseTensorProto{
			Values:  &pb.TensorProto{Name: "sp", DataType: 1, Dims: []int64{2}, FloatData: []float32{5, 7}},
			Indices: idx, Dims: []int64{2, 3},
		}
	}
	want := []float64{0, 5, 0, 0, 0, 7}
	for _, idx := range []*pb.TensorProto{ints([]int64{2}, 1, 5), ints([]int64{2, 2}, 0, 1, 1, 2)} {
		mp := small()
		mp.Graph.SparseInitializer = []*pb.SparseTensorProto{sparse(idx)}
		mp.Graph.Node = append(mp.Graph.Node, op("Constant", "k", "", "kv",
			&pb.AttributeProto{Name: "sparse_value", Type: pb.AttributeType_SPARSE_TENSOR, SparseTensor: sparse(idx)}))
		b := pb.Marshal(mp)
		m, err := ReadBytes(b, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Graph.Inits[1].Const; !slices.Equal(got.Floats(), want) || !slices.Equal(got.Shape, []int{2, 3}) {
			t.Errorf("the initializer is %s %v", got, got.Floats())
		}
		raw, _ := m.Graph.Nodes[3].Attr("sparse_value")
		if got, err := Dense(raw.(ir.Raw)); err != nil || !slices.Equal(got.Floats(), want) {
			t.Errorf("the attribute is %v, %v", got, err)
		}
		if out, err := m.Bytes(); err != nil || !bytes.Equal(out, b) {
			t.Errorf("written differently: %v", err)
		}
	}
	for _, idx := range []*pb.TensorProto{ints([]int64{2}, 1, 6), ints([]int64{2}, -1, 0), ints([]int64{2, 2}, 0, 3, 0, 0), ints([]int64{3}, 0, 1, 2)} {
		mp := small()
		mp.Graph.SparseInitializer = []*pb.SparseTensorProto{sparse(idx)}
		if _, err := ReadBytes(pb.Marshal(mp), Options{}); !fault.Is(err, fault.BadModel) {
			t.Errorf("indices %v: %v", idx.Int64Data, err)
		}
	}
	mp := small()
	mp.Graph.SparseInitializer = []*pb.SparseTensorProto{sparse(ints([]int64{2}, 1, 5))}
	mp.Graph.SparseInitializer[0].Dims = []int64{1 << 30, 3}
	if _, err := ReadBytes(pb.Marshal(mp), Options{}); !fault.Is(err, fault.Unsupported) {
		t.Errorf("a huge sparse tensor: %v", err)
	}
}

func TestSequencesOptionalsMaps(t *testing.T) {
	f := ir.Type{Form: ir.FormTensor, DType: tensor.F32}
	seq := ir.Type{Form: ir.FormSequence, Elem: &f}
	opt := ir.Type{Form: ir.FormOptional, Elem: &seq}
	x := ir.TensorData(tensor.Of([]float32{1, 2}, 2))
	keys, err := tensor.FromStrings([]int{2}, []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		typ ir.Type
		d   *ir.Data
	}{
		{f, x},
		{seq, ir.SequenceData(&f, x, x)},
		{seq, ir.SequenceData(&f)},
		{opt, ir.OptionalData(&seq, ir.SequenceData(&f, x))},
		{opt, ir.OptionalData(&seq, nil)},
		{ir.Type{Form: ir.FormMap, Key: tensor.String, Elem: &f}, &ir.Data{Form: ir.FormMap, Keys: keys, Items: []*ir.Data{x, x}, Elem: &f}},
		{ir.Type{Form: ir.FormMap, Key: tensor.I64, Elem: &seq}, &ir.Data{Form: ir.FormMap,
			Keys: tensor.Of([]int64{-3}, 1), Items: []*ir.Data{ir.SequenceData(&f, x)}, Elem: &seq}},
	} {
		b, err := EncodeData("v", c.d)
		if err != nil {
			t.Errorf("%s: %v", c.d, err)
			continue
		}
		got, err := DecodeData(b, c.typ, Options{})
		if err != nil || !sameData(got, c.d) {
			t.Errorf("%s became %s, %v", c.d, got, err)
		}
	}
	// The bare content may stand for an optional, as in ONNX's own test data.
	b, err := EncodeData("v", ir.SequenceData(&f, x))
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeData(b, opt, Options{})
	if err != nil || got.Form != ir.FormOptional || !sameData(got.Some, ir.SequenceData(&f, x)) {
		t.Errorf("bare content: %s, %v", got, err)
	}
}

// What passes make of a model: values without names, new constants, dropped
// nodes with their descriptions.
func TestChangedModelsAreWritten(t *testing.T) {
	mp := small()
	mp.IrVersion = 3
	mp.Graph.Input = append(mp.Graph.Input, floats("w", 2))
	mp.Graph.ValueInfo = []*pb.ValueInfoProto{floats("a", 2), floats("b", 2), floats("nowhere", 1)}
	m, err := ReadBytes(pb.Marshal(mp), Options{})
	if err != nil {
		t.Fatal(err)
	}
	g := m.Graph
	one := ir.NewConst("", tensor.Of([]float32{1, 1}, 2))
	g.Inits = append(g.Inits, one)
	n := &ir.Node{Op: "Sub", Inputs: []*ir.Value{g.Inputs[0], one}}
	v := &ir.Value{Def: n}
	n.Outputs = []*ir.Value{v}
	g.Nodes[1].Inputs[0] = v
	g.Nodes[0] = n
	b, err := m.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	out, err := ReadBytes(b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	const want = `onnx graph "g" {
  input %x: f32[2]
  input %c: bool[]
  input %w: f32[2]
  input %v0: f32[2]
  init %w = f32[2]{1, 2}
  init %v0 = f32[2]{1, 1}
  %v1 = Sub(%x, %v0)
  %b: f32[2] = Mul(%v1, %w) name "second"
`
	if got := ir.Print(out.Graph); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "  info %b\n  orphan %nowhere: f32[1]\n}\n") {
		t.Errorf("got\n%s", got)
	}
	g.Nodes[0], g.Nodes[1] = g.Nodes[1], g.Nodes[0]
	if _, err := m.Bytes(); !fault.Is(err, fault.Internal) {
		t.Errorf("an unsound graph was written: %v", err)
	}
}

func FuzzDecodeData(f *testing.F) {
	t := ir.Type{Form: ir.FormTensor, DType: tensor.F32}
	types := []ir.Type{t, {Form: ir.FormSequence, Elem: &t}, {Form: ir.FormOptional, Elem: &t}, {Form: ir.FormMap, Key: tensor.I64, Elem: &t}, {Form: ir.FormSparse}}
	x := ir.TensorData(tensor.Of([]float32{1, 2}, 2))
	for i, d := range []*ir.Data{x, ir.SequenceData(&t, x), ir.OptionalData(&t, x), {Form: ir.FormMap, Keys: tensor.Of([]int64{1}, 1), Items: []*ir.Data{x}}} {
		b, err := EncodeData("x", d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, byte(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, kind byte) {
		typ := types[int(kind)%len(types)]
		d, err := DecodeData(b, typ, Options{})
		if err != nil {
			if k := fault.KindOf(err); k != fault.BadModel && k != fault.Unsupported {
				t.Fatalf("%v has the class %v", err, k)
			}
			return
		}
		if typ.Form == ir.FormSparse {
			typ = ir.Type{}
		}
		c, err := EncodeData("", d)
		if err != nil {
			return // mixed element kinds cannot be written
		}
		e, err := DecodeData(c, typ, Options{})
		if err != nil || !sameData(d, e) {
			t.Fatalf("%s became %s, %v", d, e, err)
		}
	})
}
