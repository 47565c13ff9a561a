package ir_test

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/shared"
)

func roundTrip(t testing.TB, what string, g *ir.Graph) {
	t.Helper()
	text := ir.Print(g)
	h, err := ir.Parse(text)
	if err != nil {
		t.Errorf("%s: %v\n%s", what, err, excerpt(text))
		return
	}
	if again := ir.Print(h); again != text {
		t.Errorf("%s: printed again, the text differs:\n%s\n%s", what, excerpt(text), excerpt(again))
	} else if !reflect.DeepEqual(g, h) && !cmp.Equal(g, h, byBits...) {
		t.Errorf("%s: the text hides a difference:\n%s", what, excerpt(text))
	}
}

// byBits compares what DeepEqual cannot: NaNs, and a list that is empty once
// nil and once not.
var byBits = []cmp.Option{
	cmp.Comparer(func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }),
	cmp.Comparer(func(a, b *tensor.Tensor) bool { return a == b || a != nil && b != nil && tensor.Equal(a, b) }),
	cmpopts.EquateEmpty(),
}

func excerpt(s string) string { return s[:min(len(s), 4000)] }

// everything holds each construct of the text form.
func everything() *ir.Graph {
	f := func(v ...float32) *tensor.Tensor { return tensor.Of(v, len(v)) }
	strs, _ := tensor.FromStrings([]int{2}, []string{"a\"b", "\xff\n"})
	cplx, _ := tensor.FromBytes(tensor.C64, []int{1}, []byte{0, 0, 128, 63, 0, 0, 0, 64})
	i4, _ := tensor.FromBytes(tensor.I4, []int{3}, []byte{0x8f, 0x01})
	seq := ir.Type{Form: ir.FormSequence, Elem: &ir.Type{Form: ir.FormTensor, DType: tensor.F32}}
	x := &ir.Value{Name: "x", Doc: "in\n", Meta: []ir.KV{{Key: "k", Value: "v"}}, Extra: []byte{1, 2},
		Type: ir.Type{Form: ir.FormTensor, DType: tensor.F16, HasRank: true, Denotation: "IMAGE", Shape: []ir.Dim{
			{N: 1}, {N: -1}, {N: -1, Param: "N", Denotation: "DATA_BATCH"}, {N: -1, Param: "max len"}, {N: -1, Param: "xx"}, {N: 4, Param: "b"}}}}
	w := ir.NewConst("a \"quoted\"\nname", f(1, -2.5, float32(math.Inf(1)), math.Float32frombits(0x7fc00001)))
	w.Doc = "weight"
	s := &ir.Value{Name: "12", Type: seq}
	d := &ir.Value{Name: "default", Type: ir.TensorType(tensor.F32, 1), Const: f(3)}
	big := ir.NewConst("big", tensor.New(tensor.I64, 100))
	g := &ir.Graph{Name: "g\"", Doc: "d", Meta: []ir.KV{{Key: "m", Value: ""}}, Extra: []byte{0xff},
		Inputs: []*ir.Value{x, s, d}, Inits: []*ir.Value{d, w, big, ir.NewConst("s", strs), ir.NewConst("c", cplx), ir.NewConst("i", i4)}}
	inner := &ir.Value{Name: "inner"}
	use := &ir.Node{Op: "Add", Inputs: []*ir.Value{x, inner}}
	y := &ir.Value{Name: "y", Def: use}
	use.Outputs = []*ir.Value{y}
	body := &ir.Graph{Name: "body", Inputs: []*ir.Value{inner}, Nodes: []*ir.Node{use}, Outputs: []*ir.Value{y}}
	n := &ir.Node{Op: "Do It", Domain: "my.domain", Overload: "o", Name: "n", Doc: "nd", Origin: "from", Extra: []byte{9},
		Inputs: []*ir.Value{x, nil, w}, Meta: []ir.KV{{Key: "a", Value: "b"}}}
	u := &ir.Value{Def: n, Type: ir.TensorType(tensor.F32)}
	z := &ir.Value{Name: "z", Def: n, Type: ir.Type{Form: ir.FormMap, Key: tensor.String, Elem: &seq}}
	n.Outputs = []*ir.Value{nil, u, z}
	n.Attrs = []ir.Attr{
		{Name: "i", Val: int64(-3)}, {Name: "f", Val: float32(3)}, {Name: "nan", Val: math.Float32frombits(0xffc00000)},
		{Name: "s", Val: "q\"}"}, {Name: "t", Val: f(1, 2), Doc: "x", Extra: []byte{1}}, {Name: "g", Val: body},
		{Name: "ty", Val: seq}, {Name: "is", Val: []int64{}}, {Name: "fs", Val: []float32{1, 1e-9}}, {Name: "ss", Val: []string{"a", ""}},
		{Name: "ts", Val: []*tensor.Tensor{f(1), big.Const}}, {Name: "tys", Val: []ir.Type{{}, {Form: ir.FormOpaque, Opaque: [2]string{"d", "n"}}}},
		{Name: "r", Val: ir.Ref{Name: "alpha", Kind: 1}}, {Name: "raw", Val: ir.Raw{Bytes: []byte{1}}}, {Name: "gs", Val: []*ir.Graph{{Name: "e"}}},
	}
	g.Nodes = []*ir.Node{n, {Op: "Sink", Inputs: []*ir.Value{u}}}
	g.Outputs = []*ir.Value{z, z}
	g.Infos = []*ir.Value{u, {Name: "z", Type: ir.TensorType(tensor.U2)}}
	return g
}

func TestTextKeepsEverything(t *testing.T) { roundTrip(t, "everything", everything()) }

func TestTextIsReadable(t *testing.T) {
	g := &ir.Graph{Level: ir.Core, Name: "mlp"}
	x := &ir.Value{Name: "x", Type: ir.TensorType(tensor.F32, 1, 4)}
	w := ir.NewConst("w", tensor.Of([]float32{0.5, -1, 2, 3e-7}, 4, 1))
	n := &ir.Node{Op: "contract", Inputs: []*ir.Value{x, w}, Attrs: []ir.Attr{{Name: "axes", Val: []int64{1, 0}}}, Origin: "fc1"}
	y := &ir.Value{Type: ir.TensorType(tensor.F32, 1, 1), Def: n}
	n.Outputs = []*ir.Value{y}
	g.Inputs, g.Inits, g.Nodes, g.Outputs = []*ir.Value{x}, []*ir.Value{w}, []*ir.Node{n}, []*ir.Value{y}
	want := `core graph "mlp" {
  input %x: f32[1x4]
  init %w = f32[4x1]{0.5, -1, 2, 3e-07}
  %0: f32[1x1] = contract(%x, %w) {axes = [1, 0]} origin "fc1"
  output %0
}
`
	if got := ir.Print(g); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	roundTrip(t, "mlp", g)
}

func TestTextOfSharedModels(t *testing.T) {
	dir := shared.Dir(t)
	n := 0
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, ".onnx") {
			return err
		}
		m, err := onnxfile.Read(p, onnxfile.Options{})
		if err != nil {
			return err
		}
		roundTrip(t, p, m.Graph)
		n++
		return m.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d graphs", n)
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		``:                                 `line 1: expected "onnx", found the end of the text`,
		"onnx graph \"g\" {\n %y = A(%x)}": `line 2: value "x" is not defined before it is used`,
		"onnx graph \"g\" {\n input %x\n input %x}":                   `line 3: value "x" is defined twice`,
		`onnx graph "g" { init %w = f32[3]{1, 2} }`:                   `line 1: 2 elements for shape [3]`,
		`onnx graph "g" { init %w = i8[1]{300} }`:                     `line 1: "300" is not a value of i8`,
		`onnx graph "g" { init %w = f32[99999999999x99999999999]{} }`: `line 1: shape [99999999999x99999999999] has more than 2^40 elements`,
		`onnx graph "g" { init %w = f32[3]#0 }`:                       `line 1: the bytes of #0 are missing`,
		`onnx graph "g" { %y = A() {a = type f99[]} }`:                `line 1: "f99" is not an element type`,
		`onnx graph "g" { %y = A() {a = "x} }`:                        `line 1: the string is not closed or has a bad escape`,
		`onnx graph "g" {} more`:                                      `line 1: unexpected "more" behind the graph`,
		`onnx graph "g" { input %x: ` + strings.Repeat("seq(", 200):   `line 1: graphs or types nest deeper than 100`,
	} {
		_, err := ir.Parse(text)
		if err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", excerpt(text)[:min(len(text), 60)], err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(ir.Print(everything()))
	f.Add(`onnx graph "g" { input %x: f32[1x?xN] %y, _ = "Op"(%x, _) {a = [1], b = floats[nan:7fc00000]} output %y }`)
	kept, err := filepath.Glob(filepath.Join("..", "..", "testdata", "fuzz", "irtext", "*"))
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range kept {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, text string) {
		g, err := ir.Parse(text)
		if err != nil {
			return
		}
		roundTrip(t, "parsed", g)
	})
}
