package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/onnx"
)

type planOptions struct {
	*factory
	target string
	sites  bool
	code   codegenFlags
	shapes shapeFlags
}

func newPlanCmd(f *factory) *cobra.Command {
	o := &planOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "plan MODEL",
		Short: "Say what a compile would do, and what would not run, before any work",
		Long: `plan takes a model as far as a program of kernels and prints it: each call with
its work, its memory traffic and the workspace that is live meanwhile. A model
that cannot be compiled is refused with every op that is not known.

--sites prints the decisions instead: for each structure of kernels the form and
the sizes that were chosen, and whether the heuristic or a record chose them.`,
		Example: `  lathe plan model.onnx --dim N=1
  lathe plan model.onnx --target cpu --cpu x86-64-v3 --json
  lathe plan model.onnx --sites --schedules auto`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error { return o.run(a[0]) },
	}
	cmd.Flags().StringVar(&o.target, "target", "cpu", "what would be made: cpu or portable")
	cmd.Flags().BoolVar(&o.sites, "sites", false, "print the decisions that made the kernels")
	o.code.registerProgram(cmd.Flags())
	o.shapes.register(cmd)
	return cmd
}

func (o *planOptions) run(path string) error {
	make, ok := targets[o.target]
	if !ok {
		return unknownTarget(o.target)
	}
	m, opt, err := o.loadShaped(path, &o.shapes)
	if err != nil {
		return err
	}
	defer m.Close()
	if u := onnx.Unknown(m.Graph, conformance.Opsets(m)); len(u) > 0 {
		return fault.New(fault.Unsupported, "the model has ops that lathe does not know: %s", strings.Join(u, ", ")).InFile(m.Path)
	}
	if err := o.code.single(); err != nil {
		return err
	}
	l, err := lowerModel(o.factory, m, opt, make(), o.code, 1)
	if err != nil {
		return err
	}
	if o.sites {
		return o.printSites(l)
	}
	r := makeReport(m, l)
	if o.json {
		return o.JSON(r)
	}
	t := o.Table(">step", "family", "values", "node", ">flops", ">bytes", ">live")
	for i, s := range r.Steps {
		t.Row(itoa(i), s.Family, s.Values, s.Node, groupDigits(s.Flops), groupDigits(s.Bytes), bytesText(int64(s.Live)))
	}
	t.Print()
	o.Infof("%s for %s: %d kernels, %d calls, %s multiply-accumulates, workspace %s (at least %s are live at once), weights %s",
		o.target, r.CPU, r.Kernels, len(r.Steps), groupDigits(r.MACs), bytesText(int64(r.Workspace)), bytesText(int64(r.Peak)), bytesText(int64(r.Weights)))
	return nil
}

// siteInfo is a decision in `lathe plan --sites --json`.
type siteInfo struct {
	Key      string `json:"key"`
	Calls    int    `json:"calls"` // kernels of a run
	Flops    int64  `json:"flops"`
	Schedule string `json:"schedule"`
	By       string `json:"by"` // heuristic or record
}

func (o *planOptions) printSites(l *lowered) error {
	calls := map[string]int{}
	for _, s := range l.program.Steps {
		calls[s.Site]++
	}
	list, recorded := []siteInfo{}, 0
	for _, s := range l.program.Sites {
		by := "heuristic"
		if s.Recorded {
			by = "record"
			recorded++
		}
		list = append(list, siteInfo{s.Key, calls[s.Key], s.Flops, s.Chosen.String(), by})
	}
	if o.json {
		return o.JSON(list)
	}
	t := o.Table(">calls", ">flops", "by", "schedule", "site")
	for _, s := range list {
		t.Row(itoa(s.Calls), groupDigits(s.Flops), s.By, s.Schedule, s.Key)
	}
	t.Print()
	o.Infof("%s for %s: %s, %d of them recorded", o.target, l.traits.CPU, plural(len(list), "decision"), recorded)
	return nil
}
