package cli

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/zoo/checkpoint"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/universal"
)

type convertOptions struct {
	*factory
	source   sourceFlags
	edit     checkpoint.Edit
	out      string
	to       string
	dtype    string
	maxShard string
	dialect  string
	shard    string
	replicas string
	lora     string
	into     string
	asTag    string
	stages   []int
	vocab    int64
	dropTied bool
	run      checkpoint.RunOptions
}

// addFlags are the flags that convert and reshard share.
func (o *convertOptions) addFlags(fs *pflag.FlagSet) {
	o.source.add(fs)
	fs.StringVarP(&o.out, "output", "o", "", "where the checkpoint is written")
	fs.BoolVar(&o.run.DryRun, "dry-run", false, "say what would be written, and write nothing")
	fs.BoolVar(&o.run.Force, "force", false, "replace an output that exists")
	fs.BoolVar(&o.run.Sync, "sync", false, "make every file durable before the next (slower; survives a power cut)")
	fs.StringVar(&o.shard, "shard", "", "this machine's share of the work, as i/n; the last one to finish completes the output")
	fs.StringVar(&o.replicas, "replicas", "check", "copies that should be equal: check, or first to take the first")
	fs.StringArrayVar(&o.edit.Only, "only", nil, "keep only parameters that match (repeatable)")
	fs.StringArrayVar(&o.edit.Exclude, "exclude", nil, "leave out parameters that match (repeatable)")
	fs.StringArrayVar(&o.edit.Rename, "rename", nil, `rename parameters, as PATTERN=REPLACEMENT with \1 for groups (repeatable)`)
	fs.BoolVar(&o.edit.DropOptimizer, "drop-optimizer", false, "leave out the optimizer's state, keep the weights")
	fs.StringArrayVar(&o.edit.DropStates, "drop-state", nil, "leave out one optimizer state (repeatable)")
	fs.StringVar(&o.asTag, "as-tag", "", "name of the checkpoint's folder in the output (default the source's)")
}

func newCheckpointConvertCmd(f *factory) *cobra.Command {
	o := &convertOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "convert SOURCE -o OUTPUT",
		Short: "Write a checkpoint in another format",
		Long: `convert writes a checkpoint as a universal checkpoint, PyTorch DCP, Hugging Face
safetensors, one consolidated file, or DeepSpeed's native form.

Without --to, the ending of the output decides (.safetensors, .bin, .pt); a folder
becomes a universal checkpoint.`,
		Example: `  lathe checkpoint convert run/ -o run-universal/
  lathe checkpoint convert run/ -o model.safetensors --dtype bf16
  lathe checkpoint convert run/ -o hf/ --to safetensors --max-shard-size 5GB
  lathe checkpoint convert run/ -o dcp/ --to dcp --dry-run
  lathe checkpoint convert run/ -o pytorch_model.bin
  lathe checkpoint convert base/ -o merged.safetensors --merge-lora adapter/
  lathe checkpoint convert run/ -o encoder.safetensors --only 'encoder\.' --rename 'encoder\.='
  lathe checkpoint convert run/ --into model.onnx -o model.trained.onnx
  lathe checkpoint convert big/ -o big-universal/ --shard 2/8`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error { return o.convert(cmd, a[0]) },
	}
	fs := cmd.Flags()
	o.addFlags(fs)
	fs.StringVar(&o.to, "to", "", "target format: "+strings.Join(checkpoint.Formats, ", "))
	fs.StringVar(&o.dtype, "dtype", "", "cast floating-point data: f32, bf16, f16 (default as stored)")
	fs.StringVar(&o.maxShard, "max-shard-size", "", "largest file, such as 5GB (safetensors, torch, dcp)")
	fs.StringVar(&o.dialect, "dialect", "auto", "universal form: auto, dict, or flat (DeepSpeed 0.14 and 0.15 load flat into ZeRO-3)")
	fs.StringVar(&o.lora, "merge-lora", "", "PEFT adapter folder to merge into the weights")
	fs.StringVar(&o.into, "into", "", "ONNX model whose initializers of the same names take the weights; -o names the new model")
	fs.BoolVar(&o.dropTied, "drop-tied", false, "write tied weights under one name only")
	return cmd
}

func newCheckpointReshardCmd(f *factory) *cobra.Command {
	o := &convertOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "reshard SOURCE --to LAYOUT -o OUTPUT",
		Short: "Write a native DeepSpeed checkpoint in another parallel layout",
		Long: `reshard writes a checkpoint as DeepSpeed would have saved it with other numbers of
tensor-parallel, pipeline, data-parallel and expert-parallel ranks and another ZeRO
stage. Degrees that are not given stay as they are.`,
		Example: `  lathe checkpoint reshard run/ --to dp=16 -o run-16/
  lathe checkpoint reshard run/ --to tp=4,pp=2,dp=8,zero=1 -o run-64/
  lathe checkpoint reshard hf/ --to tp=2,dp=4,zero=2 --spec spec.yaml -o start/
  lathe checkpoint reshard run/ --to pp=4 --stages 0,8,16,24 -o run-pp4/`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error { return o.reshard(cmd, a[0]) },
	}
	fs := cmd.Flags()
	o.addFlags(fs)
	fs.StringVar(&o.to, "to", "", "layout, such as tp=4,pp=2,dp=8,zero=3")
	fs.IntSliceVar(&o.stages, "stages", nil, "first layer of every pipeline stage (default balanced by parameters)")
	fs.Int64Var(&o.vocab, "vocab-divisible-by", 0, "Megatron's make_vocab_size_divisible_by (default what the checkpoint says)")
	return cmd
}

func (o *convertOptions) convert(cmd *cobra.Command, source string) error {
	t := checkpoint.Target{Format: o.to, Tag: o.asTag, Dialect: universal.Dialect(o.dialect), DropTied: o.dropTied}
	if t.Format == "" {
		if t.Format = checkpoint.FormatOf(o.out); t.Format == "" {
			t.Format = checkpoint.Universal
		}
	}
	if err := oneOfFlag("to", t.Format, checkpoint.Formats...); err != nil {
		return err
	}
	if err := oneOfFlag("dialect", o.dialect, "auto", "dict", "flat"); err != nil {
		return err
	}
	var err error
	if t.DType, err = checkpoint.ParseDType(o.dtype); err != nil {
		return err
	}
	if t.MaxShard, err = parseBytes(o.maxShard); err != nil {
		return err
	}
	weights := t.Format == checkpoint.Safetensors || t.Format == checkpoint.Torch
	if weights && checkpoint.FormatOf(o.out) == t.Format {
		if t.MaxShard > 0 {
			return fault.New(fault.Usage, "%s is one file, so --max-shard-size has no use", o.out).Hint("give a folder as output")
		}
		t.File = filepath.Base(o.out)
	}
	return o.write(cmd, source, t)
}

func (o *convertOptions) reshard(cmd *cobra.Command, source string) error {
	if o.to == "" {
		return fault.New(fault.Usage, "reshard needs --to").Hint("such as --to tp=4,pp=2,dp=8,zero=3")
	}
	l, err := parseLayout(o.to)
	if err != nil {
		return err
	}
	l.Stages, l.VocabDivisor, l.Tag = o.stages, o.vocab, o.asTag
	return o.write(cmd, source, checkpoint.Target{Format: checkpoint.DeepSpeed, Layout: l})
}

// write opens the source, edits it, and converts.
func (o *convertOptions) write(cmd *cobra.Command, source string, t checkpoint.Target) error {
	if o.out == "" {
		return fault.New(fault.Usage, "no output is given").Hint("give one with -o")
	}
	if err := oneOfFlag("replicas", o.replicas, "check", "first"); err != nil {
		return err
	}
	var err error
	if o.run.Shard, o.run.Shards, err = parseShard(o.shard); err != nil {
		return err
	}
	c, err := o.source.open(source, checkpoint.OpenOptions{})
	if err != nil {
		return err
	}
	defer c.Close()
	if o.lora != "" {
		if err := checkpoint.MergeLoRA(c, o.lora); err != nil {
			return err
		}
	}
	if err := o.edit.Apply(c); err != nil {
		return err
	}
	if o.into != "" {
		res, err := checkpoint.IntoONNX(c, o.into, o.out, o.run.Force)
		if err != nil {
			return err
		}
		return o.tell(c, res, time.Second)
	}
	t.Note = fmt.Sprintf("%+v %s", o.edit, o.lora)
	ctx, cancel := o.context(cmd)
	defer cancel()
	o.run.Jobs, o.run.FirstReplica = o.jobs, o.replicas == "first"
	p := o.watch("writing " + o.out)
	o.run.Begin, o.run.Progress = p.begin, p.add
	start := time.Now()
	res, err := checkpoint.Convert(ctx, c, o.out, t, o.run)
	p.done()
	if err != nil {
		return err
	}
	return o.tell(c, res, time.Since(start))
}

// tell reports the result.
func (o *convertOptions) tell(c *atom.Checkpoint, res *checkpoint.Result, took time.Duration) error {
	for _, w := range c.Warnings {
		o.Warnf("%s", w)
	}
	if o.json {
		return o.JSON(res)
	}
	switch {
	case res.DryRun:
		t := o.Table(">bytes", "file")
		for _, f := range res.Plan {
			t.Row(fmt.Sprint(f.Bytes), f.Name)
		}
		t.Print()
		o.Infof("%d parameters would become %d files with %d bytes of data (%s)", res.Params, res.Files, res.Bytes, res.Format)
	case !res.Complete:
		o.Infof("this share is done; %s appears when all shares are", res.Output)
	default:
		rate := float64(res.Written) / 1e6 / max(took.Seconds(), 1e-3)
		o.Infof("%s: %d parameters in %d files, %d bytes (%s, %.0f MB/s)", res.Output, res.Params, res.Files, res.Bytes, res.Format, rate)
		if res.Resumed > 0 {
			o.Infof("%d files were there from an earlier run", res.Resumed)
		}
	}
	return nil
}
