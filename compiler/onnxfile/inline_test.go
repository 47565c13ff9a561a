package onnxfile

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
)

func refAttr(name, to string, typ pb.AttributeType) *pb.AttributeProto {
	return &pb.AttributeProto{Name: name, RefAttrName: to, Type: typ}
}

func intAttr(name string, v int64) *pb.AttributeProto {
	a := &pb.AttributeProto{Name: name, Type: pb.AttributeType_INT, I: v}
	a.Has.Set(3)
	return a
}

// withFunctions calls f.Outer twice; Outer calls f.Inner, passes its second
// input through, and has a branch that captures a value.
func withFunctions() *pb.ModelProto {
	inner := &pb.FunctionProto{
		Name: "Inner", Domain: "f", Input: []string{"u"}, Output: []string{"v"}, Attribute: []string{"axis"},
		AttributeProto: []*pb.AttributeProto{intAttr("keepdims", 1)},
		OpsetImport:    []*pb.OperatorSetIdProto{{Version: 17}},
		Node: []*pb.NodeProto{
			op("ReduceMax", "", "u", "m", refAttr("axes", "axis", pb.AttributeType_INT), refAttr("keepdims", "keepdims", pb.AttributeType_INT),
				refAttr("gone", "never", pb.AttributeType_INT)),
			op("Sub", "sub", "u m", "v"),
		},
	}
	branch := &pb.GraphProto{Name: "br", Node: []*pb.NodeProto{op("Neg", "", "t", "r")}, Output: []*pb.ValueInfoProto{{Name: "r"}}}
	branch2 := &pb.GraphProto{Name: "br2", Node: []*pb.NodeProto{op("Abs", "", "t", "r")}, Output: []*pb.ValueInfoProto{{Name: "r"}}}
	outer := &pb.FunctionProto{
		Name: "Outer", Domain: "f", Input: []string{"p", "q", "opt"}, Output: []string{"o", "q"}, Attribute: []string{"k"},
		OpsetImport: []*pb.OperatorSetIdProto{{Version: 17}, {Domain: "f", Version: 1}},
		Node: []*pb.NodeProto{
			{OpType: "Inner", Domain: "f", Input: []string{"p"}, Output: []string{"t"}, Attribute: []*pb.AttributeProto{refAttr("axis", "k", pb.AttributeType_INT)}},
			op("If", "", "q", "o",
				&pb.AttributeProto{Name: "then_branch", Type: pb.AttributeType_GRAPH, G: branch},
				&pb.AttributeProto{Name: "else_branch", Type: pb.AttributeType_GRAPH, G: branch2}),
			op("Clip", "", "t opt", "unused"),
		},
	}
	call := func(name, in, out string) *pb.NodeProto {
		n := op("Outer", name, in, out, intAttr("k", 1))
		n.Domain = "f"
		return n
	}
	return &pb.ModelProto{
		IrVersion: 8, OpsetImport: []*pb.OperatorSetIdProto{{Version: 17}, {Domain: "f", Version: 1}},
		Functions: []*pb.FunctionProto{inner, outer},
		Graph: &pb.GraphProto{
			Name: "g", Input: []*pb.ValueInfoProto{{Name: "x"}, {Name: "c"}},
			Output: []*pb.ValueInfoProto{{Name: "y"}, {Name: "z"}},
			Node:   []*pb.NodeProto{call("one", "x c", "a"), call("two", "a c", "y z")},
		},
	}
}

func TestFunctionsSurviveAndInline(t *testing.T) {
	want := pb.Marshal(withFunctions())
	m, err := ReadBytes(want, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Bytes(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("functions change in a round trip: %v", err)
	}
	if err := m.InlineFunctions(nil); err != nil {
		t.Fatal(err)
	}
	if err := ir.Verify(m.Graph); err != nil {
		t.Fatal(err)
	}
	const text = `onnx graph "g" {
  input %x
  input %c
  %"one/t/m" = ReduceMax(%x) {axes = 1, keepdims = 1}
  %"one/t" = Sub(%x, %"one/t/m") name "one/t/sub"
  %a = If(%c) {then_branch = onnx graph "br" {
    %"one/r" = Neg(%"one/t")
    output %"one/r"
  }, else_branch = onnx graph "br2" {
    %"one/r_1" = Abs(%"one/t")
    output %"one/r_1"
  }}
  %"one/unused" = Clip(%"one/t", _)
  %"two/t/m" = ReduceMax(%a) {axes = 1, keepdims = 1}
  %"two/t" = Sub(%a, %"two/t/m") name "two/t/sub"
  %y = If(%c) {then_branch = onnx graph "br" {
    %"two/r" = Neg(%"two/t")
    output %"two/r"
  }, else_branch = onnx graph "br2" {
    %"two/r_1" = Abs(%"two/t")
    output %"two/r_1"
  }}
  %"two/unused" = Clip(%"two/t", _)
  %z = Identity(%c)
  output %y
  output %z
}
`
	if got := ir.Print(m.Graph); got != text {
		t.Errorf("got\n%s", got)
	}
	if b, err := m.Bytes(); err != nil {
		t.Error(err)
	} else if _, err := ReadBytes(b, Options{}); err != nil {
		t.Errorf("the inlined model does not read: %v", err)
	}
}

func TestFunctionsThatCannotBeInlined(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(m *pb.ModelProto)
		want  string
	}{
		{"recursion", func(m *pb.ModelProto) {
			n := m.Functions[0].Node[1]
			n.OpType, n.Domain, n.Input = "Outer", "f", []string{"u"}
		}, `function "Outer" calls itself`},
		{"opset", func(m *pb.ModelProto) { m.Functions[0].OpsetImport[0].Version = 12 },
			`function "Inner" uses ReduceMax of opset 12, which differs from the model's opset 17`},
		{"arity", func(m *pb.ModelProto) { m.Graph.Node[0].Input = []string{"x", "c", "c", "c"} },
			`the call has 4 inputs and 1 outputs, function "Outer" takes 3 and gives 2`},
		{"omitted", func(m *pb.ModelProto) { m.Graph.Node[1].Input[1] = "" },
			`function "Outer" gives "q", an input that the call omits`},
		{"loose reference", func(m *pb.ModelProto) {
			m.Graph.Node[0].Attribute[0] = refAttr("k", "nothing", pb.AttributeType_INT)
		}, `attribute "k" refers to an attribute of a function, but the node is in none`},
	} {
		mp := withFunctions()
		c.spoil(mp)
		m, err := ReadBytes(pb.Marshal(mp), Options{})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err := m.InlineFunctions(nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
	// Another version is no obstacle where the caller says that ops mean the same.
	mp := withFunctions()
	mp.Functions[0].OpsetImport[0].Version = 12
	m, err := ReadBytes(pb.Marshal(mp), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.InlineFunctions(func(_, _ string, _, _ int) bool { return true }); err != nil {
		t.Error(err)
	}
}

// Functions that each call the next one twice would make 2^40 nodes.
func TestInliningIsBounded(t *testing.T) {
	mp := withFunctions()
	mp.Functions = nil
	mp.Graph.Node = []*pb.NodeProto{{OpType: "F0", Domain: "f", Input: []string{"x"}, Output: []string{"y"}}, op("Neg", "", "x", "z")}
	for i := range 40 {
		next := "F" + string(rune('0'+i+1))
		if i == 39 {
			next = "Neg"
		}
		call := func(in, out string) *pb.NodeProto {
			return &pb.NodeProto{OpType: next, Domain: "f", Input: []string{in}, Output: []string{out}}
		}
		mp.Functions = append(mp.Functions, &pb.FunctionProto{Name: "F" + string(rune('0'+i)), Domain: "f",
			Input: []string{"a"}, Output: []string{"c"}, Node: []*pb.NodeProto{call("a", "b"), call("b", "c")}})
	}
	m, err := ReadBytes(pb.Marshal(mp), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.InlineFunctions(nil); err == nil || !strings.Contains(err.Error(), "inlining functions makes more than") {
		t.Errorf("got %v", err)
	}
}
