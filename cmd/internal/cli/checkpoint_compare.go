package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/zoo/checkpoint"
)

type checkpointCompareOptions struct {
	*factory
	source  sourceFlags
	weights bool
	verify  bool
}

func newCheckpointVerifyCmd(f *factory) *cobra.Command {
	o := &checkpointCompareOptions{factory: f, verify: true}
	cmd := &cobra.Command{
		Use:   "verify A B",
		Short: "Prove that two checkpoints hold the same, bit for bit",
		Long: `verify compares two checkpoints by parameter and state, whatever their formats and
layouts. Any difference gives exit code 5.

--weights compares the weights alone: a training checkpoint with a model exported
from it.`,
		Example: `  lathe checkpoint verify run/ run-universal/
  lathe checkpoint verify run/ model.safetensors --weights
  lathe checkpoint verify run/ run-64/ --json`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error { return o.run(cmd, a[0], a[1]) },
	}
	o.source.add(cmd.Flags())
	cmd.Flags().BoolVar(&o.weights, "weights", false, "compare the weights only")
	return cmd
}

func newCheckpointDiffCmd(f *factory) *cobra.Command {
	o := &checkpointCompareOptions{factory: f}
	cmd := &cobra.Command{
		Use:     "diff A B",
		Short:   "List in what two checkpoints differ",
		Long:    `diff lists parameters that only one checkpoint has, and differing shapes, element types and values.`,
		Example: "  lathe checkpoint diff step1000/ step2000/\n  lathe checkpoint diff a.safetensors b.safetensors --json",
		Args:    args(cobra.ExactArgs(2)),
		RunE:    func(cmd *cobra.Command, a []string) error { return o.run(cmd, a[0], a[1]) },
	}
	o.source.add(cmd.Flags())
	cmd.Flags().BoolVar(&o.weights, "weights", false, "compare the weights only")
	return cmd
}

func (o *checkpointCompareOptions) run(cmd *cobra.Command, pathA, pathB string) error {
	a, err := o.source.open(pathA, checkpoint.OpenOptions{})
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := checkpoint.Open(pathB, checkpoint.OpenOptions{})
	if err != nil {
		return err
	}
	defer b.Close()
	ctx, cancel := o.context(cmd)
	defer cancel()
	p := o.watch("comparing")
	c, err := checkpoint.Compare(ctx, a, b, checkpoint.CompareOptions{
		Weights: o.weights, Jobs: o.jobs, Begin: p.begin, Progress: p.add,
	})
	p.done()
	if err != nil {
		return err
	}
	if o.json {
		if err := o.JSON(c); err != nil {
			return err
		}
	} else {
		o.print(c)
	}
	switch {
	case o.verify && len(c.Differences) > 0:
		return fault.New(fault.Verify, "the checkpoints differ in %d places", len(c.Differences))
	case o.verify && c.Tensors == 0:
		return fault.New(fault.Verify, "the checkpoints have nothing in common that could be compared")
	}
	return nil
}

func (o *checkpointCompareOptions) print(c *checkpoint.Comparison) {
	t := o.Table("change", "parameter", "state", "a", "b", ">elements", ">max abs")
	for _, d := range c.Differences {
		n, m := "", ""
		if d.Change == "values" {
			n, m = fmt.Sprint(d.Elements), fmt.Sprintf("%.3g", d.MaxAbs)
		}
		t.Row(d.Change, d.Param, d.State, d.A, d.B, n, m)
	}
	if t.Len() > 0 {
		t.Print()
	}
	if len(c.Differences) == 0 {
		o.Infof("equal: %d parameters, %d tensors, %d bytes", c.Params, c.Tensors, c.Bytes)
	}
}
