package pass

import (
	"context"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/rewrite"
)

const chain = `onnx graph "g" {
  input %x: f32[2]
  %a = Identity(%x) name "first"
  %b = Relu(%a)
  %c = Identity(%b) name "second"
  %y: f32[2] = Neg(%c)
  output %y
}
`

func subject(t *testing.T) *Subject {
	t.Helper()
	g, err := ir.Parse(chain)
	if err != nil {
		t.Fatal(err)
	}
	return &Subject{Graph: g, Opsets: map[string]int{"": 13}, IRVersion: 8}
}

// copies removes Identity nodes.
var copies = rewrite.Rule{
	Name:  "copies",
	Match: func(_ *rewrite.Editor, n *ir.Node) bool { return n.Op == "Identity" },
	Build: func(_ *rewrite.Editor, n *ir.Node) *rewrite.Patch {
		return &rewrite.Patch{At: n, Same: []rewrite.Swap{{Old: n.Outputs[0], New: n.Inputs[0]}}, Why: "a copy"}
	},
}

func row(name string, run func(s *Subject, log *rewrite.Log)) Pass {
	return Pass{Name: name, Run: func(_ context.Context, s *Subject, log *rewrite.Log) (Notes, error) {
		run(s, log)
		return nil, nil
	}}
}

func sweep(s *Subject, log *rewrite.Log) {
	rewrite.Each(s.Graph, log, s.Variable(), func(e *rewrite.Editor) { e.Sweep([]rewrite.Rule{copies}) })
}

func TestRunReportsDumpsAndStops(t *testing.T) {
	s := subject(t)
	var dumped string
	rep, err := Run(context.Background(), []Pass{row("tidy", sweep)}, s, Options{
		StopAfter: 1, DumpAfter: []string{"tidy"},
		Dump: func(pass, text string) error { dumped = pass + ":" + text; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Edits) != 1 || rep.Edits[0].Node != "first" || rep.Edits[0].Pass != "tidy" || rep.Edits[0].Rule != "copies" || !rep.Stopped {
		t.Errorf("%+v", rep)
	}
	if st := rep.Steps[0]; st.Before.Nodes != 4 || st.After.Nodes != 3 || st.Edits != 1 {
		t.Errorf("%+v", st)
	}
	if dumped != "tidy:"+ir.Print(s.Graph) || !strings.Contains(dumped, "%b = Relu(%x)") || !strings.Contains(dumped, "second") {
		t.Errorf("dump is %s", dumped)
	}
	if rep.ByRule()["copies"] != 1 || len(rep.Of("first")) != 1 || len(rep.Of("second")) != 0 {
		t.Error("the report does not find its edits")
	}
}

func TestRunNamesThePassThatPanics(t *testing.T) {
	var stack []byte
	_, err := Run(context.Background(), []Pass{row("bad", func(s *Subject, log *rewrite.Log) {
		sweep(s, log)
		panic("BUG: lost")
	})}, subject(t), Options{Stack: func(_ string, b []byte) { stack = b }})
	want := `internal error in pass bad (after edit 2, copies at node "second"): BUG: lost`
	if err == nil || err.Error() != want || fault.KindOf(err) != fault.Internal {
		t.Errorf("got %v, want %s", err, want)
	}
	if !strings.Contains(string(stack), "run_test.go") {
		t.Error("the stack is not handed out")
	}
}

func TestRunVerifies(t *testing.T) {
	broken := row("breaks", func(s *Subject, _ *rewrite.Log) { s.Graph.Nodes = s.Graph.Nodes[1:] })
	if _, err := Run(context.Background(), []Pass{broken}, subject(t), Options{}); err == nil || !strings.HasPrefix(err.Error(), "internal error after pass breaks: ") {
		t.Errorf("a broken graph: %v", err)
	}
	s := subject(t)
	s.Graph.Nodes = s.Graph.Nodes[1:]
	if _, err := Run(context.Background(), []Pass{row("any", sweep)}, s, Options{}); !fault.Is(err, fault.BadModel) {
		t.Errorf("a graph that was broken before: %v", err)
	}
	core := row("late", sweep)
	core.From = ir.Core
	if _, err := Run(context.Background(), []Pass{core}, subject(t), Options{}); err == nil || !strings.Contains(err.Error(), "pass late works on core graphs") {
		t.Errorf("a wrong level: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, []Pass{row("any", sweep)}, subject(t), Options{}); err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

func TestRunSkipsByName(t *testing.T) {
	always := row("needed", sweep)
	always.Always = true
	var ran []string
	list := []Pass{row("one", sweep), always}
	rep, err := Run(context.Background(), list, subject(t), Options{Skip: []string{"one", "needed"}, Progress: func(p string) { ran = append(ran, p) }})
	if err != nil || len(rep.Steps) != 1 || len(ran) != 1 || ran[0] != "needed" {
		t.Errorf("%v %v %v", rep.Steps, ran, err)
	}
	if _, err := Run(context.Background(), list, subject(t), Options{Skip: []string{"two"}}); !fault.Is(err, fault.Usage) {
		t.Errorf("a pass that does not exist: %v", err)
	}
}
