package onnx

import (
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
)

// inferGraph has what shapes do in exported models: views by computed shapes,
// strides, a clamp that looks constant from afar, and an op without a row.
const inferGraph = `onnx graph "g" {
  input %x: f32[NxCx8x?]
  input %w: f32[4]
  init %zero = i64[]{0}
  init %one = i64[]{1}
  init %axis = i64[1]{0}
  init %minus = i64[1]{-1}
  init %hundred = i64[]{100}
  init %two = i64[1]{2}
  init %end = i64[1]{5}
  init %begin = i64[1]{500}
  init %far = i64[1]{1000}
  init %pads = i64[8]{1, 0, 0, 0, 2, 0, 0, 0}
  %shape = Shape(%x)
  %n = Gather(%shape, %zero)
  %height = Gather(%shape, %two)
  %n1 = Unsqueeze(%n, %axis)
  %to = Concat(%n1, %minus) {axis = 0}
  %flat = Reshape(%x, %to)
  %pair = Concat(%flat, %flat) {axis = 1}
  %most = Max(%n, %hundred)
  %most1 = Unsqueeze(%most, %axis)
  %filled = ConstantOfShape(%most1)
  %twice = Concat(%x, %x) {axis = 0}
  %strange = Strange(%x) domain "else.where"
  %after = Relu(%strange)
  %head = Slice(%x, %axis, %end, %axis)
  %tail = Slice(%x, %begin, %far, %axis)
  %grown = Pad(%x, %pads)
  %none = NonZero(%w)
  output %after
}
`

func TestInfer(t *testing.T) {
	g, err := ir.Parse(inferGraph)
	if err != nil {
		t.Fatal(err)
	}
	opsets := map[string]int{"": 17, "else.where": 1}
	f, err := InferFacts(g, Options{Opsets: opsets}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"x": "f32[NxCx8xx:3]", "shape": "i64[4]", "n": "i64[]", "to": "i64[2]",
		"flat": "f32[Nx?]",       // C·8·x:3 is no linear form
		"pair": "f32[Nx?]",       // twice that
		"most": "", "filled": "", // 100 in every probe below, but not for N = 200
		"twice": "f32[2*NxCx8xx:3]", "strange": "", "after": "",
		"head":  "f32[?xCx8xx:3]", // min(N, 5)
		"tail":  "f32[?xCx8xx:3]", // 0 in every probe
		"grown": "f32[N+3xCx8xx:3]",
		"none":  "",
	}
	got := map[string]string{}
	values := map[string]bool{}
	for v, typ := range f.Types {
		got[v.Name] = typ.String()
	}
	for v := range f.Values {
		values[v.Name] = true
	}
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%s is %q, want %q", name, got[name], w)
		}
	}
	if !values["height"] || values["n"] || values["shape"] || values["most"] || values["to"] {
		t.Errorf("constant values: %v", values)
	}
	types, err := Infer(g, Options{Opsets: opsets, Dims: map[string]int{"N": 2, "C": 3, "x:3": 4}})
	if err != nil {
		t.Fatal(err)
	}
	for v, typ := range types {
		got[v.Name] = typ.String()
	}
	for name, w := range map[string]string{"flat": "f32[2x96]", "pair": "f32[2x192]", "filled": "f32[100]", "head": "f32[2x3x8x4]", "tail": "f32[0x3x8x4]", "after": ""} {
		if got[name] != w {
			t.Errorf("with bound dimensions %s is %q, want %q", name, got[name], w)
		}
	}
	if d := FreeDims(g, Options{}); len(d) != 3 || d[0] != "C" || d[1] != "N" || d[2] != "x:3" {
		t.Errorf("free dimensions %q", d)
	}
}
