package lower_test

import (
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/internal/golden"
)

// TestGoldens runs each testdata/lower/*.txtar: a core graph and the kernels
// and memory that it becomes. The first line is "lower" and the traits: -lanes,
// -regs, -features, -precision, and -form, which all sites take that have it. The kernels are interpreted too: what -update writes is right, or the
// test fails.
func TestGoldens(t *testing.T) {
	golden.Run(t, filepath.Join("..", "..", "testdata", "lower"), func(t *testing.T, c *golden.Case) {
		args := c.Command()
		fs := flag.NewFlagSet("case", flag.ContinueOnError)
		lanes, regs := fs.Int("lanes", 8, ""), fs.Int("regs", 16, "")
		features, mode, form := fs.String("features", "", ""), fs.String("precision", "", ""), fs.String("form", "", "")
		if err := fs.Parse(args[1:]); err != nil {
			t.Fatal(err)
		}
		g, err := ir.Parse(c.Input("in"))
		if err != nil {
			t.Fatal(err)
		}
		p := lowered(t, g, lower.Options{Lanes: *lanes, Regs: *regs, Features: strings.Fields(*features), Precision: precision.Mode(*mode),
			Schedules: func(string) (schedule.Choice, bool) { return schedule.Choice{Form: *form}, *form != "" }})
		var b strings.Builder
		index := map[string]int{}
		for i, k := range p.Kernels {
			index[k.String()] = i
			fmt.Fprintf(&b, "#%d %s", i, k)
		}
		c.Want("kernels", b.String())
		b.Reset()
		where := []string{"workspace", "input", "output", "weights"}
		for _, s := range p.Steps {
			fmt.Fprintf(&b, "#%d(", index[s.Kernel.String()])
			for i, a := range s.Args {
				if i > 0 {
					b.WriteString(", ")
				}
				at := a.Offset
				if a.Index > at {
					at = a.Index
				}
				fmt.Fprintf(&b, "%s+%d", where[a.Where], at)
			}
			fmt.Fprintf(&b, ") %s\n", s.Label)
		}
		fmt.Fprintf(&b, "workspace %d, weights %d\n", p.Workspace, p.Weights)
		c.Want("steps", b.String())
	})
}
