package rewrite

import (
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func parse(t *testing.T, text string) *ir.Graph {
	t.Helper()
	g, err := ir.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func node(g *ir.Graph, op string) *ir.Node {
	for _, n := range g.Nodes {
		if n.Op == op {
			return n
		}
	}
	return nil
}

const nested = `onnx graph "g" {
  input %x: f32[2]
  input %c: bool[]
  init %k = f32[2]{1, 2}
  init %k2 = f32[2]{3, 4}
  %a = Add(%x, %k)
  %b = Exp(%a)
  %d = Identity(%b)
  %y: f32[2] = If(%c) {then_branch = onnx graph "t" {
      %p = Mul(%d, %k2)
      output %p
    }, else_branch = onnx graph "e" {
      %q = Neg(%x)
      output %q
    }}
  %z: f32[2] = Identity(%b)
  output %y
  output %z
}
`

// A value that a subgraph reads is swapped there too, and an output of the
// graph keeps its name: its producer takes it over.
func TestSwapReachesSubgraphsAndKeepsOutputs(t *testing.T) {
	g := parse(t, nested)
	log := &Log{Pass: "p"}
	e := Open(g, log, nil)
	copies := Rule{Name: "copy", Match: func(_ *Editor, n *ir.Node) bool { return n.Op == "Identity" },
		Build: func(_ *Editor, n *ir.Node) *Patch {
			return &Patch{At: n, Same: []Swap{{n.Outputs[0], n.Inputs[0]}}, Why: "copy"}
		}}
	if n := e.Sweep([]Rule{copies}); n != 2 {
		t.Fatalf("%d edits", n)
	}
	if err := ir.Verify(g); err != nil {
		t.Fatal(err)
	}
	text := ir.Print(g)
	for _, want := range []string{"%z: f32[2] = Exp(%a)", "%p = Mul(%z, %k2)"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if n := node(g, "Exp"); e.Readers(n.Outputs[0]) != 2 || e.OnlyReader(n.Outputs[0]) != nil {
		t.Error("the index lost a reader")
	}
}

// Dropping the last reader drops what only it read, constants too, across the
// border of a subgraph.
func TestDropFollowsReads(t *testing.T) {
	g := parse(t, strings.Replace(nested, "  output %z\n", "", 1))
	log := &Log{}
	e := Open(g, log, nil)
	n := node(g, "If")
	y := n.Outputs[0]
	neg := &ir.Node{Op: "Neg", Inputs: []*ir.Value{g.Inputs[0]}, Outputs: []*ir.Value{y}}
	if !e.Apply("r", &Patch{At: n, Nodes: []*ir.Node{neg}, Why: "w"}) {
		t.Fatal("refused")
	}
	e.Dead()
	want := "onnx graph \"g\" {\n  input %x: f32[2]\n  input %c: bool[]\n  %y: f32[2] = Neg(%x)\n  output %y\n}\n"
	if got := ir.Print(g); got != want {
		t.Errorf("got\n%s", got)
	}
	if ed := log.Edits[0]; strings.Join(ed.Removed, ",") != "y (If),d (Identity)" || strings.Join(ed.Added, ",") != "y (Neg)" {
		t.Errorf("%+v", ed)
	}
}

func TestOutputsKeepTheirNames(t *testing.T) {
	g := parse(t, `onnx graph "g" {
  input %x: f32[2]
  %y: f32[2] = Identity(%x)
  output %y
}
`)
	before := ir.Print(g)
	e := Open(g, &Log{}, nil)
	n := g.Nodes[0]
	if e.Apply("r", &Patch{At: n, Same: []Swap{{n.Outputs[0], g.Inputs[0]}}}) || ir.Print(g) != before {
		t.Error("an output became an input")
	}
}

func TestLimitAndFreshNames(t *testing.T) {
	g := parse(t, nested)
	log := &Log{Limit: 1}
	e := Open(g, log, nil)
	if a, b := e.Fresh("x"), e.Fresh("p"); a != "x_1" || b != "p_1" || e.Fresh("x") != "x_2" || e.Fresh("new") != "new" {
		t.Errorf("%s %s", a, b)
	}
	any := Rule{Name: "any", Match: func(_ *Editor, n *ir.Node) bool { return n.Op == "Identity" },
		Build: func(_ *Editor, n *ir.Node) *Patch { return &Patch{At: n, Same: []Swap{{n.Outputs[0], n.Inputs[0]}}} }}
	if n := e.Sweep([]Rule{any}); n != 1 || !log.Full() {
		t.Errorf("%d edits", n)
	}
}

// An unsound patch is refused before anything changes.
func TestUnsoundPatchesPanic(t *testing.T) {
	for name, bad := range map[string]func(g *ir.Graph, n *ir.Node) *Patch{
		"leaves": func(_ *ir.Graph, n *ir.Node) *Patch { return &Patch{At: n} },
		"twice": func(g *ir.Graph, n *ir.Node) *Patch {
			m := &ir.Node{Op: "Neg", Inputs: n.Inputs, Outputs: []*ir.Value{g.Nodes[0].Outputs[0]}}
			return &Patch{At: n, Nodes: []*ir.Node{m}, Same: []Swap{{n.Outputs[0], n.Inputs[0]}}}
		},
		"gone":  func(*ir.Graph, *ir.Node) *Patch { return &Patch{At: &ir.Node{Op: "Neg"}} },
		"there": func(g *ir.Graph, n *ir.Node) *Patch { return &Patch{At: n, Nodes: []*ir.Node{g.Nodes[0]}} },
	} {
		t.Run(name, func(t *testing.T) {
			g := parse(t, nested)
			before := ir.Print(g)
			defer func() {
				if r := recover(); r == nil || !strings.HasPrefix(r.(string), "BUG: rule bad ") {
					t.Errorf("got %v", r)
				}
				if ir.Print(g) != before {
					t.Error("the graph was changed")
				}
			}()
			Open(g, &Log{}, nil).Apply("bad", bad(g, g.Nodes[1]))
		})
	}
}

func TestConstantsThatCallersOverride(t *testing.T) {
	g := parse(t, nested)
	e := Open(g, &Log{}, nil)
	k := g.Inits[0]
	if e.Const(k) != k.Const || e.Const(g.Inputs[0]) != nil || e.Const(nil) != nil {
		t.Error("constants are not told")
	}
	e.Variable = map[*ir.Value]bool{k: true}
	if e.Const(k) != nil {
		t.Error("a default value passes for a constant")
	}
	if v := e.NewConst("k", tensor.Scalar(float32(1))); v.Name != "k_1" {
		t.Error(v.Name)
	}
}
