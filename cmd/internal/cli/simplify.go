package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/pass"
	"github.com/lathe-ml/lathe/passes"
	"github.com/lathe-ml/lathe/passes/simplify"
)

type simplifyOptions struct {
	*factory
	model     string
	out       string
	force     bool
	dryRun    bool
	rules     []string
	skip      []string
	stopAfter int
	randomize string
	shapes    shapeFlags
}

func newSimplifyCmd(f *factory) *cobra.Command {
	o := &simplifyOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "simplify MODEL -o OUT.onnx",
		Short: "Make a model smaller without changing what it computes",
		Long: `simplify folds constants, leaves out nodes that do nothing or repeat others, folds
normalizations into the convolutions before them, and merges transposes and
reshapes. What it did to which node, and why, is printed.

Dimensions that --dim or --input-shapes bind let it fold computations of shapes;
the result then takes these shapes only.

--randomize-weights SEED first replaces the weights by seeded random ones of the
usual scale (He normal), for a model that is shared or timed without its weights.

Rules:` + rulesHelp(),
		Example: `  lathe simplify model.onnx -o small.onnx
  lathe simplify model.onnx -o small.onnx --dim batch=1 --json
  lathe simplify model.onnx -o small.onnx --rules fold,identity
  lathe simplify model.onnx -o public.onnx --randomize-weights 1`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			o.model = a[0]
			ctx, stop := f.context(cmd)
			defer stop()
			return o.run(ctx)
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&o.out, "output", "o", "", "the model that is written")
	fl.BoolVar(&o.force, "force", false, "replace an output that exists")
	fl.BoolVar(&o.dryRun, "dry-run", false, "print what would be done, write nothing")
	fl.StringSliceVar(&o.rules, "rules", nil, "only these rules, or none")
	fl.StringSliceVar(&o.skip, "skip-rules", nil, "all rules but these")
	fl.IntVar(&o.stopAfter, "stop-after", 0, "stop after so many edits, to find one that breaks a model")
	fl.StringVar(&o.randomize, "randomize-weights", "", "replace weights by random values of this seed")
	o.shapes.register(cmd)
	return cmd
}

func ruleNames() []string {
	names, _ := passes.SimplifyRules()
	return names
}

// rulesHelp describes each rule in a line.
func rulesHelp() string {
	var b strings.Builder
	names, docs := passes.SimplifyRules()
	for i, n := range names {
		fmt.Fprintf(&b, "\n  %-16s %s", n, docs[i])
	}
	return b.String()
}

// simplifyResult is what `lathe simplify --json` prints.
type simplifyResult struct {
	Model  string `json:"model"`
	Output string `json:"output,omitempty"`
	Before int    `json:"nodes_before"`
	After  int    `json:"nodes_after"`
	pass.Report
}

func (o *simplifyOptions) run(ctx context.Context) error {
	for _, r := range append(append([]string{}, o.rules...), o.skip...) {
		if r == noRules {
			continue
		}
		if err := choice("rules", r, ruleNames()...); err != nil {
			return err
		}
	}
	seed, random, err := parseSeed(o.randomize)
	if err != nil {
		return err
	}
	if err := o.checkOut(); err != nil {
		return err
	}
	m, opt, err := o.loadShaped(o.model, &o.shapes)
	if err != nil {
		return err
	}
	defer m.Close()
	res := simplifyResult{Model: o.model, Before: pass.Count(m.Graph).Nodes}
	switch none := slices.Contains(o.rules, noRules); {
	case none && random:
		res.Report, err = passes.RandomizeWeights(ctx, m, seed)
	case !none:
		res.Report, err = passes.Simplify(ctx, m, passes.Options{
			Simplify:  simplify.Options{Dims: opt.Dims, Shapes: opt.Shapes, Only: o.rules, Skip: o.skip},
			Randomize: random, Seed: seed,
			Run: pass.Options{StopAfter: o.stopAfter},
		})
	}
	if err != nil {
		return err
	}
	res.After = pass.Count(m.Graph).Nodes
	if !o.dryRun {
		if err := m.Write(o.out, onnxfile.WriteOptions{}); err != nil {
			return err
		}
		res.Output = o.out
	}
	return o.print(res)
}

// noRules is the --rules that applies none.
const noRules = "none"

func (o *simplifyOptions) checkOut() error {
	if o.dryRun {
		return nil
	}
	if o.out == "" {
		return fault.New(fault.Usage, "no output file").Hint("give one with -o small.onnx, or --dry-run")
	}
	return checkOutput(o.out, o.force, o.model)
}

func (o *simplifyOptions) print(res simplifyResult) error {
	if o.json {
		return o.JSON(res)
	}
	t := o.Table("rule", "op", "node", "why")
	for _, e := range res.Edits {
		t.Row(e.Rule, e.Op, e.Node, e.Why)
	}
	if t.Len() > 0 {
		t.Print()
	}
	for _, step := range res.Steps {
		for _, n := range step.Notes {
			o.Infof("%s: %s %s", step.Pass, groupDigits(n.Value), n.Name)
		}
	}
	o.Infof("%d nodes, %d before", res.After, res.Before)
	return nil
}
