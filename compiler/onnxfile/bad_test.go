package onnxfile

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
)

func floats(name string, dims ...int64) *pb.ValueInfoProto {
	s := &pb.TensorShapeProto{}
	for _, d := range dims {
		x := &pb.Dimension{DimValue: d}
		x.Has.Set(1)
		s.Dim = append(s.Dim, x)
	}
	return &pb.ValueInfoProto{Name: name, Type: &pb.TypeProto{TensorType: &pb.TensorType{ElemType: 1, Shape: s}}}
}

func op(typ, name, in, out string, attrs ...*pb.AttributeProto) *pb.NodeProto {
	return &pb.NodeProto{OpType: typ, Name: name, Input: fields(in), Output: fields(out), Attribute: attrs}
}

func fields(s string) []string { return strings.Fields(s) }

// small is a model with an initializer, a subgraph and a chain of nodes; each
// test spoils it.
func small() *pb.ModelProto {
	sub := func(out string) *pb.GraphProto {
		return &pb.GraphProto{Name: out, Node: []*pb.NodeProto{op("Neg", "", "b", out)}, Output: []*pb.ValueInfoProto{floats(out, 2)}}
	}
	w := &pb.TensorProto{Name: "w", DataType: 1, Dims: []int64{2}, RawData: []byte{0, 0, 128, 63, 0, 0, 0, 64}}
	return &pb.ModelProto{
		IrVersion: 8, OpsetImport: []*pb.OperatorSetIdProto{{Version: 17}},
		Graph: &pb.GraphProto{
			Name: "g", Initializer: []*pb.TensorProto{w},
			Input:  []*pb.ValueInfoProto{floats("x", 2), {Name: "c", Type: &pb.TypeProto{TensorType: &pb.TensorType{ElemType: 9, Shape: &pb.TensorShapeProto{}}}}},
			Output: []*pb.ValueInfoProto{floats("y", 2)},
			Node: []*pb.NodeProto{
				op("Add", "first", "x w", "a"),
				op("Mul", "second", "a w", "b"),
				op("If", "choice", "c", "y",
					&pb.AttributeProto{Name: "then_branch", Type: pb.AttributeType_GRAPH, G: sub("p")},
					&pb.AttributeProto{Name: "else_branch", Type: pb.AttributeType_GRAPH, G: sub("q")}),
			},
		},
	}
}

func TestSmallModelReads(t *testing.T) {
	m, err := ReadBytes(pb.Marshal(small()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ir.Verify(m.Graph); err != nil {
		t.Fatal(err)
	}
	// The branches read b of the enclosing graph by pointer.
	b := m.Graph.Nodes[1].Outputs[0]
	for _, g := range m.Graph.Nodes[2].Subgraphs() {
		if g.Nodes[0].Inputs[0] != b {
			t.Errorf("branch %s does not read the outer value", g.Name)
		}
	}
}

func TestBadModelsAreRefusedInOneSentence(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(m *pb.ModelProto)
		kind  fault.Kind
		want  string
	}{
		{"cycle", func(m *pb.ModelProto) { m.Graph.Node[0].Input[1] = "b" }, fault.BadModel,
			`node "first" (Add): the graph has a cycle: "first" -> "second" -> "first"`},
		{"self", func(m *pb.ModelProto) { m.Graph.Node[0].Input[1] = "a" }, fault.BadModel,
			`node "first" (Add): the graph has a cycle: "first" -> "first"`},
		{"cycle through a branch", func(m *pb.ModelProto) { m.Graph.Node[2].Attribute[0].G.Node[0].Input[0] = "y" }, fault.BadModel,
			`node "p" (Neg): the graph has a cycle: "choice" -> "choice"`},
		{"cycle further up", func(m *pb.ModelProto) {
			m.Graph.Node = append(m.Graph.Node, op("Neg", "late", "late2", "l"), op("Neg", "later", "l", "late2"))
			m.Graph.Node[0].Input[1] = "l"
		}, fault.BadModel, `node "first" (Add): the graph has a cycle: "late" -> "later" -> "late"`},
		{"order", func(m *pb.ModelProto) { n := m.Graph.Node; n[0], n[1] = n[1], n[0] }, fault.BadModel,
			`node "second" (Mul): input 0 ("a") is computed by a later node, "first"`},
		{"missing", func(m *pb.ModelProto) { m.Graph.Node[0].Input[1] = "no\n\"such\"" }, fault.BadModel,
			`node "first" (Add): input 1 ("no\n\"such\"") is computed by no node and is no graph input or initializer`},
		{"twice", func(m *pb.ModelProto) { m.Graph.Node[1].Output[0] = "a" }, fault.BadModel,
			`node "second" (Mul): output "a": the name is taken by another value of the graph`},
		{"two inputs", func(m *pb.ModelProto) { m.Graph.Input = append(m.Graph.Input, floats("x")) }, fault.BadModel,
			`graph input "x": the name is taken by another value of the graph`},
		{"two initializers", func(m *pb.ModelProto) { m.Graph.Initializer = append(m.Graph.Initializer, m.Graph.Initializer[0]) }, fault.BadModel,
			`initializer "w": the name is taken by another value of the graph`},
		{"shadow", func(m *pb.ModelProto) { m.Graph.Node[2].Attribute[0].G.Node[0].Output[0] = "a" }, fault.BadModel,
			`node "a" (Neg): output "a": the name is taken by a value of the enclosing graph`},
		{"nameless input", func(m *pb.ModelProto) { m.Graph.Input[0].Name = "" }, fault.BadModel, `graph input has no name`},
		{"no op", func(m *pb.ModelProto) { m.Graph.Node[0].OpType = "" }, fault.BadModel, `node "first" has no op type`},
		{"no output", func(m *pb.ModelProto) { m.Graph.Output[0].Name = "z" }, fault.BadModel, `graph output "z" is computed by no node`},
		{"raw length", func(m *pb.ModelProto) { m.Graph.Initializer[0].RawData = []byte{1, 2, 3} }, fault.BadModel,
			`initializer "w": raw data has 3 bytes, shape [2] of float needs 8`},
		{"typed length", func(m *pb.ModelProto) {
			m.Graph.Initializer[0].RawData, m.Graph.Initializer[0].FloatData = nil, []float32{1}
		}, fault.BadModel, `initializer "w": 1 values in the typed data fields, shape [2] of float needs 2 in the field for that type`},
		{"wrong field", func(m *pb.ModelProto) {
			m.Graph.Initializer[0].RawData, m.Graph.Initializer[0].Int64Data = nil, []int64{1, 2}
		}, fault.BadModel, `initializer "w": 2 values in the typed data fields, shape [2] of float needs 2 in the field for that type`},
		{"absurd shape", func(m *pb.ModelProto) { m.Graph.Initializer[0].Dims = []int64{1 << 40, 1 << 40} }, fault.BadModel,
			`initializer "w": shape [1099511627776x1099511627776] has more than 2^40 elements`},
		{"absurd type", func(m *pb.ModelProto) { m.Graph.Input[0] = floats("x", 1<<40) }, fault.BadModel,
			`type of "x": dimension 0 is 1099511627776, which is not below 2^40`},
		{"absurd product", func(m *pb.ModelProto) { m.Graph.Input[0] = floats("x", 1<<30, 1<<30) }, fault.BadModel,
			`type of "x": shape [1073741824x1073741824] has more than 2^40 elements`},
		{"negative", func(m *pb.ModelProto) { m.Graph.Initializer[0].Dims = []int64{-2} }, fault.BadModel, `initializer "w": dimension 0 is -2`},
		{"dtype", func(m *pb.ModelProto) { m.Graph.Initializer[0].DataType = 99 }, fault.Unsupported,
			`initializer "w": element type number 99 is not one of ONNX's`},
		{"segment", func(m *pb.ModelProto) { m.Graph.Initializer[0].Segment = &pb.TensorSegment{} }, fault.Unsupported,
			`initializer "w": the tensor is stored in segments`},
		{"old", func(m *pb.ModelProto) { m.IrVersion = 2 }, fault.Unsupported, `IR version 2; lathe reads 3 to 13`},
		{"new", func(m *pb.ModelProto) { m.IrVersion = 99 }, fault.Unsupported, `IR version 99; lathe reads 3 to 13`},
		{"opset", func(m *pb.ModelProto) { m.OpsetImport = nil }, fault.BadModel, `the model imports no opset`},
		{"opset twice", func(m *pb.ModelProto) {
			m.OpsetImport = append(m.OpsetImport, &pb.OperatorSetIdProto{Domain: "ai.onnx", Version: 9})
		}, fault.BadModel, `opset domain "ai.onnx" is imported twice`},
		{"graph", func(m *pb.ModelProto) { m.Graph = nil }, fault.BadModel, `the file holds no graph`},
		{"attribute twice", func(m *pb.ModelProto) { m.Graph.Node[2].Attribute[1].Name = "then_branch" }, fault.BadModel,
			`node "choice" (If): attribute "then_branch" is given twice`},
		{"attribute type", func(m *pb.ModelProto) { m.Graph.Node[2].Attribute[1].Type = 77 }, fault.Unsupported,
			`node "choice" (If): attribute "else_branch" has the type number 77, which is not one of ONNX's`},
		{"external without folder", func(m *pb.ModelProto) {
			w := m.Graph.Initializer[0]
			w.RawData, w.DataLocation = nil, pb.DataLocation_EXTERNAL
			w.ExternalData = []*pb.StringStringEntryProto{entry("location", "w.bin")}
		}, fault.BadModel, `initializer "w": external data "w.bin" belongs to a model that was read from no folder`},
	} {
		m := small()
		c.spoil(m)
		_, err := ReadBytes(pb.Marshal(m), Options{})
		if err == nil || err.Error() != c.want || fault.KindOf(err) != c.kind {
			t.Errorf("%s: got %v (%v), want %s (%v)", c.name, err, fault.KindOf(err), c.want, c.kind)
		}
	}
}

// A file cut at any place is refused, or, where it ends between fields, read.
func TestTruncatedFiles(t *testing.T) {
	b := pb.Marshal(small())
	dir := t.TempDir()
	for n := range b {
		if _, err := ReadBytes(b[:n], Options{}); err == nil {
			t.Errorf("the first %d of %d bytes were accepted", n, len(b))
		} else if fault.KindOf(err) != fault.BadModel && fault.KindOf(err) != fault.Unsupported {
			t.Errorf("the first %d bytes: %v has no class", n, err)
		}
	}
	p := filepath.Join(dir, "cut.onnx")
	if err := os.WriteFile(p, b[:len(b)/2], 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := Read(p, Options{})
	want := p + ": not a readable ONNX model: the file ends in the middle of a message, or is not an ONNX file"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	for _, bad := range []string{filepath.Join(dir, "none.onnx"), dir} {
		if _, err := Read(bad, Options{}); fault.KindOf(err) != fault.BadModel || !strings.HasPrefix(err.Error(), bad+": ") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// Random damage never panics, never gives an unclassed error, never takes
// memory beyond a small multiple of the file.
func TestMutatedFiles(t *testing.T) {
	seeds := [][]byte{pb.Marshal(small())}
	for _, p := range []string{"test_if", "test_loop11", "test_sequence_insert_at_back", "test_castlike_FLOAT_to_INT4"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "onnx-backend-tests", "node", p, "model.onnx"))
		if err == nil {
			seeds = append(seeds, b)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	read := 0
	for i := range 5000 {
		b := mutate(rng, seeds[i%len(seeds)])
		m, err := ReadBytes(b, Options{})
		if err != nil {
			if k := fault.KindOf(err); k != fault.BadModel && k != fault.Unsupported {
				t.Fatalf("mutation %d: %v has the class %v", i, err, k)
			}
			continue
		}
		read++
		if err := ir.Verify(m.Graph); err != nil {
			t.Fatalf("mutation %d: the reader made a graph that is not sound: %v", i, err)
		}
		if _, err := m.Bytes(); err != nil {
			t.Fatalf("mutation %d cannot be written: %v", i, err)
		}
	}
	runtime.ReadMemStats(&after)
	if per := (after.TotalAlloc - before.TotalAlloc) / 5000; per > 1<<20 {
		t.Errorf("%d bytes allocated per file of at most %d", per, len(seeds[0]))
	}
	t.Logf("%d of 5000 were still readable", read)
}

func mutate(rng *rand.Rand, seed []byte) []byte {
	b := append([]byte{}, seed...)
	for range 1 + rng.IntN(4) {
		at := rng.IntN(len(b))
		switch rng.IntN(4) {
		case 0:
			b[at] ^= 1 << rng.IntN(8)
		case 1:
			b[at] = byte(rng.IntN(256))
		case 2:
			end := min(len(b), at+1+rng.IntN(16))
			b = append(b[:at], b[end:]...)
		case 3:
			b = append(b[:at], append([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, b[at:]...)...)
		}
		if len(b) == 0 {
			return []byte{0}
		}
	}
	return b
}

func TestNamesOfAnyKindSurvive(t *testing.T) {
	mp := small()
	odd := "a\"b\n*/ #include <x> \\ \x00 é %s"
	mp.Graph.Node[0].Name = odd
	mp.Graph.Node[0].Output[0] = odd
	mp.Graph.Node[1].Input[0] = odd
	want := pb.Marshal(mp)
	m, err := ReadBytes(want, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if m.Graph.Nodes[0].Outputs[0].Name != odd {
		t.Errorf("the name became %q", m.Graph.Nodes[0].Outputs[0].Name)
	}
	g, err := ir.Parse(ir.Print(m.Graph))
	if err != nil || g.Nodes[0].Outputs[0].Name != odd {
		t.Errorf("in the text form: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(pb.Marshal(small()))
	f.Add(pb.Marshal(withFunctions()))
	for _, seed := range rootSeeds(f, "onnxfile") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ReadBytes(b, Options{})
		if err != nil {
			if k := fault.KindOf(err); k != fault.BadModel && k != fault.Unsupported {
				t.Fatalf("%v has the class %v", err, k)
			}
			return
		}
		if err := ir.Verify(m.Graph); err != nil {
			t.Fatalf("the reader made a graph that is not sound: %v", err)
		}
		c, err := m.Bytes()
		if err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		n, err := ReadBytes(c, Options{})
		if err != nil {
			t.Fatalf("written and read again: %v", err)
		}
		if d, err := n.Bytes(); err != nil || string(c) != string(d) {
			t.Fatalf("the second writing differs: %v", err)
		}
		text := ir.Print(m.Graph)
		if text != ir.Print(n.Graph) {
			t.Fatal("the second reading differs")
		}
		if g, err := ir.Parse(text); err != nil || ir.Print(g) != text {
			t.Fatalf("the text form does not hold the graph: %v", err)
		}
		_ = m.InlineFunctions(nil)
	})
}

// rootSeeds are the kept finds below the module's testdata/fuzz.
func rootSeeds(f testing.TB, sub string) [][]byte {
	files, err := filepath.Glob(filepath.Join("..", "..", "testdata", "fuzz", sub, "*"))
	if err != nil {
		f.Fatal(err)
	}
	var out [][]byte
	for _, p := range files {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}
