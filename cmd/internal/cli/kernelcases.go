package cli

import (
	"fmt"
	"math"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/data"
)

// kernelCase is a layer whose kernels --kernels times: a small network of its
// own, in which the layer stands where it would stand in a large one.
type kernelCase struct {
	Kind  string // conv, matmul: bound by multiply-adds; memory: by bandwidth; other: by either
	Name  string
	Shape string
	make  func(k *sketch)
}

// kernelCases are the layers of the well-known networks, and the ops between
// them.
var kernelCases = []kernelCase{
	conv("3x3", 64, 56, 64, 3, 1),
	conv("3x3", 128, 28, 128, 3, 1),
	conv("3x3", 256, 14, 256, 3, 1),
	conv("3x3", 512, 7, 512, 3, 1),
	conv("3x3 stride 2", 128, 56, 128, 3, 2),
	conv("3x3 stride 2", 256, 28, 256, 3, 2),
	conv("1x1", 64, 56, 256, 1, 1),
	conv("1x1", 256, 56, 64, 1, 1),
	conv("1x1", 128, 28, 512, 1, 1),
	conv("1x1", 512, 28, 128, 1, 1),
	conv("1x1", 256, 14, 1024, 1, 1),
	conv("1x1", 1024, 14, 256, 1, 1),
	conv("1x1", 512, 7, 2048, 1, 1),
	conv("1x1", 2048, 7, 512, 1, 1),
	conv("1x1 stride 2", 256, 56, 512, 1, 2),
	conv("1x1 squeeze", 16, 55, 64, 1, 1),
	conv("3x3 expand", 16, 55, 64, 3, 1),
	conv("3x3 expand", 48, 13, 192, 3, 1),
	conv("1x1 pointwise", 96, 56, 32, 1, 1),
	conv("1x1 pointwise", 32, 28, 192, 1, 1),
	conv("1x1 pointwise", 384, 14, 64, 1, 1),
	conv("1x1 pointwise", 160, 7, 960, 1, 1),
	conv("1x1 pointwise", 320, 7, 1280, 1, 1),
	conv("1x1 pointwise", 32, 112, 16, 1, 1),
	conv("5x5", 48, 28, 64, 5, 1),
	conv("7x7 stem", 3, 224, 64, 7, 2),
	conv("3x3", 64, 224, 64, 3, 1),
	conv("3x3", 128, 112, 128, 3, 1),
	matmul(128, 768, 768),
	matmul(128, 768, 3072),
	matmul(128, 3072, 768),
	matmul(384, 768, 768),
	matmul(64, 512, 512),
	matmul(32, 1024, 4096),
	matmul(512, 512, 512),
	matmul(16, 256, 256),
	products(12, 128, 64, 128),
	matmul(128, 64, 33),
	matmul(200, 80, 3),
	products(12, 128, 128, 64),
	products(8, 1, 64, 128),
	depthwise(32, 112, 1),
	depthwise(96, 112, 2),
	depthwise(144, 56, 1),
	depthwise(384, 14, 1),
	depthwise(960, 7, 1),
	vector(4096, 4096),
	pointwise("Relu", 64, 32, 32),
	pointwise("Relu", 64, 112, 112),
	pointwise("Relu", 64, 512, 512),
	sum(64, 112, 112),
	scaled(64, 112, 112),
	pool("MaxPool", 64, 112, 3, 2),
	pool("MaxPool", 192, 28, 3, 1),
	pool("AveragePool", 64, 56, 2, 2),
	plane("MaxPool", 64, 112, 3, 2),
	plane("AveragePool", 192, 28, 3, 1),
	globalPool(1280, 7),
	rows("Softmax", 1536, 128),
	rows("Softmax", 384, 1024),
	channels("Softmax", 21, 128),
	rows("LayerNormalization", 128, 768),
	rows("LayerNormalization", 128, 1024),
	transposed(768, 3072),
	transposed(128, 128),
	permuted([]int{1, 56, 56, 64}, 0, 3, 1, 2),
	permuted([]int{1, 128, 12, 64}, 0, 2, 1, 3),
	reduced("ReduceMax", 512, 1024),
	sloped(64, 56),
	running(8, 128, 256),
	joined(64, 56, 56),
	resized(64, 56),
	gathered(30000, 768, 128),
	function("Sigmoid", 100, 1, 1000),
	function("Tanh", 100, 1, 1000),
	function("Exp", 100, 1, 1000),
	function("Erf", 128, 1, 3072),
	function("Sin", 100, 1, 1000),
}

// subjectName names the nodes whose kernels are timed; what stands before and
// after them has other names.
const subjectName = "subject"

// sketch builds the graph of a case and counts the subject's work.
type sketch struct {
	g     *ir.Graph
	err   error
	flops int64 // of the subject, as its op is defined
	bytes int64 // that it has to read and write at least
}

func newSketch(c kernelCase) (*sketch, error) {
	k := &sketch{g: &ir.Graph{Name: "kernel"}}
	c.make(k)
	return k, k.err
}

func (k *sketch) input(shape ...int) *ir.Value {
	v := &ir.Value{Name: fmt.Sprintf("x%d", len(k.g.Inputs)), Type: ir.TensorType(tensor.F32, shape...)}
	k.g.Inputs = append(k.g.Inputs, v)
	return v
}

// weight is a constant of the size that keeps values of one size from layer to
// layer.
func (k *sketch) weight(sums int, shape ...int) *ir.Value {
	name := fmt.Sprintf("w%d", len(k.g.Inits))
	t, err := data.Random(tensor.F32, shape, 1, name)
	if err != nil {
		k.err = err
		t = tensor.New(tensor.F32, shape...)
	}
	scale := 1 / math.Sqrt(float64(sums))
	for i := range t.Len() {
		t.SetFloat(i, t.Float(i)*scale)
	}
	return k.init(ir.NewConst(name, t))
}

func (k *sketch) init(v *ir.Value) *ir.Value {
	k.g.Inits = append(k.g.Inits, v)
	return v
}

func (k *sketch) node(name, op string, shape []int, attrs []ir.Attr, in ...*ir.Value) *ir.Value {
	v := &ir.Value{Name: fmt.Sprintf("v%d", len(k.g.Nodes)), Type: ir.TensorType(tensor.F32, shape...)}
	n := &ir.Node{Op: op, Name: name, Inputs: in, Outputs: []*ir.Value{v}, Attrs: attrs}
	v.Def = n
	k.g.Nodes = append(k.g.Nodes, n)
	return v
}

func (k *sketch) output(v *ir.Value) { k.g.Outputs = append(k.g.Outputs, v) }

// moves counts what the subject reads and writes.
func (k *sketch) moves(values ...*ir.Value) {
	for _, v := range values {
		k.bytes += 4 * int64(tensor.Numel(v.Static()))
	}
}

func ints(name string, v ...int64) ir.Attr { return ir.Attr{Name: name, Val: v} }

// spatial adds a convolution with a bias and Relu.
func (k *sketch) spatial(name string, x *ir.Value, oc, size, stride, groups int) *ir.Value {
	s := x.Static()
	ic, hw, pad := s[1], s[2], size/2
	out := (hw+2*pad-size)/stride + 1
	w := k.weight(ic/groups*size*size, oc, ic/groups, size, size)
	b := k.weight(1, oc)
	y := k.node(name, "Conv", []int{1, oc, out, out}, []ir.Attr{
		ints("kernel_shape", int64(size), int64(size)), ints("strides", int64(stride), int64(stride)),
		ints("pads", int64(pad), int64(pad), int64(pad), int64(pad)), {Name: "group", Val: int64(groups)}}, x, w, b)
	if name == subjectName {
		k.flops = 2 * int64(tensor.Numel(y.Static())) * int64(ic/groups*size*size)
		k.moves(x, w, b, y)
	}
	return k.node(name, "Relu", y.Static(), nil, y)
}

// conv is a convolution between 1x1 convolutions, so that it finds and leaves
// its values in the layout that a network has. A stem reads the input itself.
func conv(name string, ic, hw, oc, size, stride int) kernelCase {
	return kernelCase{"conv", name, fmt.Sprintf("%d×%d×%d → %d", ic, hw, hw, oc), func(k *sketch) {
		var x *ir.Value
		if ic <= 4 {
			x = k.input(1, ic, hw, hw)
		} else {
			x = k.spatial("before", k.input(1, 16, hw, hw), ic, 1, 1, 1)
		}
		y := k.spatial(subjectName, x, oc, size, stride, 1)
		k.output(k.spatial("after", y, 16, 1, 1, 1))
	}}
}

func depthwise(c, hw, stride int) kernelCase {
	return kernelCase{"other", "depthwise 3x3", fmt.Sprintf("%d×%d×%d, stride %d", c, hw, hw, stride), func(k *sketch) {
		x := k.spatial("before", k.input(1, 16, hw, hw), c, 1, 1, 1)
		y := k.spatial(subjectName, x, c, 3, stride, c)
		k.output(k.spatial("after", y, 16, 1, 1, 1))
	}}
}

func (k *sketch) product(x, w *ir.Value, out ...int) *ir.Value {
	y := k.node(subjectName, "MatMul", out, nil, x, w)
	s := x.Static()
	k.flops = 2 * int64(tensor.Numel(out)) * int64(s[len(s)-1])
	k.moves(x, w, y)
	return y
}

// matmul is a product with weights.
func matmul(m, kk, n int) kernelCase {
	return kernelCase{"matmul", "weights", fmt.Sprintf("%d×%d · %d×%d", m, kk, kk, n), func(k *sketch) {
		x := k.input(m, kk)
		k.output(k.product(x, k.weight(kk, kk, n), m, n))
	}}
}

// vector is the product of one row with weights: it reads them once.
func vector(kk, n int) kernelCase {
	c := matmul(1, kk, n)
	c.Kind, c.Name = "memory", "product with a vector"
	return c
}

// products are those of two values, as in attention.
func products(batch, m, kk, n int) kernelCase {
	return kernelCase{"matmul", "two values", fmt.Sprintf("%d × (%d×%d · %d×%d)", batch, m, kk, kk, n), func(k *sketch) {
		x, w := k.input(batch, m, kk), k.input(batch, kk, n)
		k.output(k.product(x, w, batch, m, n))
	}}
}

// memory is an op between the model's input and its output.
func memory(op, shape string, in [][]int, out []int, attrs ...ir.Attr) kernelCase {
	return kernelCase{"memory", op, shape, func(k *sketch) {
		var args []*ir.Value
		for _, s := range in {
			args = append(args, k.input(s...))
		}
		y := k.node(subjectName, op, out, attrs, args...)
		k.moves(append(args, y)...)
		k.output(y)
	}}
}

func chw(c, h, w int) string { return fmt.Sprintf("%d×%d×%d", c, h, w) }

func pointwise(op string, c, h, w int) kernelCase {
	s := []int{1, c, h, w}
	return memory(op, chw(c, h, w), [][]int{s}, s)
}

// function is a pointwise op that costs more than to move its values.
func function(op string, c, h, w int) kernelCase {
	k := pointwise(op, c, h, w)
	k.Kind = "other"
	return k
}

func sum(c, h, w int) kernelCase {
	s := []int{1, c, h, w}
	return memory("Add", chw(c, h, w), [][]int{s, s}, s)
}

func joined(c, h, w int) kernelCase {
	s := []int{1, c, h, w}
	return memory("Concat", "2 × "+chw(c, h, w), [][]int{s, s}, []int{1, 2 * c, h, w}, ir.Attr{Name: "axis", Val: int64(1)})
}

// between is an op on the values between two convolutions.
func between(kind, op, what string, c, hw, out int, in []*ir.Value, attrs ...ir.Attr) kernelCase {
	return kernelCase{kind, op, chw(c, hw, hw) + what, func(k *sketch) {
		x := k.spatial("before", k.input(1, 16, hw, hw), c, 1, 1, 1)
		y := k.node(subjectName, op, []int{1, c, out, out}, attrs, append([]*ir.Value{x}, in...)...)
		for _, v := range in {
			if v != nil {
				k.init(v)
			}
		}
		k.moves(x, y)
		k.output(k.spatial("after", y, 16, 1, 1, 1))
	}}
}

func pool(op string, c, hw, size, stride int) kernelCase {
	pad := (size - 1) / 2
	return between("memory", op, fmt.Sprintf(", %dx%d stride %d", size, size, stride), c, hw, (hw+2*pad-size)/stride+1, nil,
		ints("kernel_shape", int64(size), int64(size)), ints("strides", int64(stride), int64(stride)),
		ints("pads", int64(pad), int64(pad), int64(pad), int64(pad)))
}

// plane is a pool of the model's input, whose channels lie apart.
func plane(op string, c, hw, size, stride int) kernelCase {
	pad := (size - 1) / 2
	out := (hw+2*pad-size)/stride + 1
	return memory(op, fmt.Sprintf("%s, %dx%d stride %d, input", chw(c, hw, hw), size, size, stride), [][]int{{1, c, hw, hw}}, []int{1, c, out, out},
		ints("kernel_shape", int64(size), int64(size)), ints("strides", int64(stride), int64(stride)),
		ints("pads", int64(pad), int64(pad), int64(pad), int64(pad)))
}

func globalPool(c, hw int) kernelCase {
	return between("memory", "GlobalAveragePool", "", c, hw, 1, nil)
}

// resized doubles height and width.
func resized(c, hw int) kernelCase {
	sizes := ir.NewConst("sizes", tensor.Wrap([]int64{1, int64(c), int64(2 * hw), int64(2 * hw)}, 4))
	return between("memory", "Resize", ", nearest, doubled", c, hw, 2*hw, []*ir.Value{nil, nil, sizes},
		ir.Attr{Name: "mode", Val: "nearest"}, ir.Attr{Name: "nearest_mode", Val: "floor"}, ir.Attr{Name: "coordinate_transformation_mode", Val: "asymmetric"})
}

func transposed(m, n int) kernelCase {
	return memory("Transpose", fmt.Sprintf("%d×%d", m, n), [][]int{{m, n}}, []int{n, m}, ints("perm", 1, 0))
}

func permuted(shape []int, perm ...int64) kernelCase {
	out := make([]int, len(shape))
	for i, p := range perm {
		out[i] = shape[p]
	}
	return memory("Transpose", fmt.Sprintf("%v by %v", shape, perm), [][]int{shape}, out, ints("perm", perm...))
}

// channels is a normalization of the channels of each pixel.
func channels(op string, c, hw int) kernelCase {
	s := []int{1, c, hw, hw}
	return memory(op, chw(c, hw, hw)+", channels", [][]int{s}, s, ir.Attr{Name: "axis", Val: int64(1)})
}

func reduced(op string, m, n int) kernelCase {
	return memory(op, fmt.Sprintf("%d×%d", m, n), [][]int{{m, n}}, []int{m, 1}, ints("axes", 1))
}

// sloped is a PRelu with a slope for each channel.
func sloped(c, hw int) kernelCase {
	return kernelCase{"memory", "PRelu", chw(c, hw, hw), func(k *sketch) {
		x := k.input(1, c, hw, hw)
		y := k.node(subjectName, "PRelu", x.Static(), nil, x, k.weight(1, c, 1, 1))
		k.moves(x, y)
		k.output(y)
	}}
}

// running is a sum along the middle axis.
func running(n, m, inner int) kernelCase {
	return kernelCase{"memory", "CumSum", chw(n, m, inner), func(k *sketch) {
		x := k.input(n, m, inner)
		axis := k.init(ir.NewConst("axis", tensor.Wrap([]int64{1})))
		y := k.node(subjectName, "CumSum", x.Static(), nil, x, axis)
		k.moves(x, y)
		k.output(y)
	}}
}

// scaled is a scale and a shift per channel.
func scaled(c, h, w int) kernelCase {
	return kernelCase{"memory", "BatchNormalization", chw(c, h, w), func(k *sketch) {
		x := k.input(1, c, h, w)
		ones := tensor.New(tensor.F32, c)
		for i := range c {
			ones.SetFloat(i, 1)
		}
		y := k.node(subjectName, "BatchNormalization", x.Static(), nil, x, k.weight(1, c), k.weight(1, c), k.weight(1, c), k.init(ir.NewConst("variance", ones)))
		k.moves(x, y)
		k.output(y)
	}}
}

// rows are normalizations of the last axis.
func rows(op string, m, n int) kernelCase {
	return kernelCase{"memory", op, fmt.Sprintf("%d×%d", m, n), func(k *sketch) {
		x := k.input(m, n)
		in := []*ir.Value{x}
		if op == "LayerNormalization" {
			in = append(in, k.weight(1, n), k.weight(1, n))
		}
		y := k.node(subjectName, op, x.Static(), []ir.Attr{{Name: "axis", Val: int64(-1)}}, in...)
		k.moves(x, y)
		k.output(y)
	}}
}

// gathered takes some rows of a table.
func gathered(table, width, n int) kernelCase {
	return kernelCase{"memory", "Gather", fmt.Sprintf("%d rows of %d×%d", n, table, width), func(k *sketch) {
		at := &ir.Value{Name: "at", Type: ir.TensorType(tensor.I64, n)}
		k.g.Inputs = append(k.g.Inputs, at)
		y := k.node(subjectName, "Gather", []int{n, width}, nil, k.weight(1, table, width), at)
		k.moves(y, y) // as many rows are read as are written
		k.output(y)
	}}
}
