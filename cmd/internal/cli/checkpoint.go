package cli

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/internal/nearest"
	"github.com/lathe-ml/lathe/zoo/checkpoint"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/deepspeed"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
)

const checkpointLong = `checkpoint converts distributed training checkpoints between parallel layouts
and formats: any source, any target, without Python and without executing pickle.

Sources: DeepSpeed ZeRO-1/2/3, BF16 optimizer, elastic, mixture of experts, pipeline
and tensor parallel; universal; Megatron-Core torch_dist; PyTorch DCP; Hugging Face
shards; .pt .bin .safetensors .npz files; .onnx.
Targets: universal, DeepSpeed in any layout, DCP, Hugging Face, consolidated files.

Every byte is read and written once, in fixed memory. The output appears under its
name when it is complete; a run that was killed goes on where it was when the same
command is given again.`

func newCheckpointCmd(f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "Convert, reshard and compare training checkpoints",
		Long:  checkpointLong,
		Example: `  lathe checkpoint inspect run/
  lathe checkpoint convert run/ -o run-universal/
  lathe checkpoint reshard run/ --to tp=4,pp=2,dp=8,zero=1 -o run-256/
  lathe checkpoint verify run/ run-universal/`,
	}
	cmd.AddCommand(newCheckpointInspectCmd(f), newCheckpointConvertCmd(f), newCheckpointReshardCmd(f),
		newCheckpointVerifyCmd(f), newCheckpointDiffCmd(f))
	return cmd
}

// sourceFlags say how a checkpoint is read.
type sourceFlags struct {
	spec string
	tag  string
}

func (s *sourceFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&s.spec, "spec", "", "YAML file of patterns that replaces what the checkpoint says of itself")
	fs.StringVar(&s.tag, "tag", "", "folder inside the save folder (default the latest)")
}

// open reads a checkpoint with the rules that were given.
func (s *sourceFlags) open(place string, o checkpoint.OpenOptions) (*atom.Checkpoint, error) {
	o.Tag = s.tag
	var want spec.Degrees
	if s.spec != "" {
		b, err := os.ReadFile(s.spec)
		if err != nil {
			return nil, err
		}
		if o.Spec, want, err = spec.Parse(b); err != nil {
			return nil, fault.New(fault.Usage, "%w", err).InFile(s.spec)
		}
	}
	c, err := checkpoint.Open(place, o)
	if err != nil {
		return nil, err
	}
	got := checkpoint.Degrees(c)
	for _, d := range []struct {
		name      string
		got, want int
	}{{"tp", got.TP, want.TP}, {"pp", got.PP, want.PP}, {"dp", got.DP, want.DP}} {
		if d.want > 0 && d.want != d.got && c.Format == "deepspeed" {
			c.Close()
			return nil, fault.New(fault.Usage, "the spec states %s=%d, the checkpoint has %s=%d", d.name, d.want, d.name, d.got).InFile(s.spec)
		}
	}
	return c, nil
}

// parseLayout reads tp=4,pp=2,dp=8,zero=3.
func parseLayout(text string) (deepspeed.Layout, error) {
	var l deepspeed.Layout
	for _, part := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		n, err := strconv.Atoi(value)
		if !ok || err != nil || n < 1 {
			return l, fault.New(fault.Usage, "layout %q is not of the form tp=4,pp=2,dp=8,zero=3", text)
		}
		switch key {
		case "tp":
			l.TP = n
		case "pp":
			l.PP = n
		case "dp":
			l.DP = n
		case "ep":
			l.EP = n
		case "zero":
			l.Zero = n
		default:
			return l, fault.New(fault.Usage, "layout %q has an unknown degree %q", text, key).Hint("use tp, pp, dp, ep and zero")
		}
	}
	return l, nil
}

// oneOfFlag checks a flag's value against a list and suggests the nearest.
func oneOfFlag(flag, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	err := fault.New(fault.Usage, "unknown value %q for --%s", value, flag)
	if n := nearest.Find(value, allowed); n != "" {
		return err.Hint("did you mean %q?", n)
	}
	return err.Hint("use one of: %s", strings.Join(allowed, ", "))
}

// parseShard reads i/n.
func parseShard(text string) (i, n int, err error) {
	if text == "" {
		return 1, 1, nil
	}
	a, b, ok := strings.Cut(text, "/")
	i, err1 := strconv.Atoi(a)
	n, err2 := strconv.Atoi(b)
	if !ok || err1 != nil || err2 != nil || i < 1 || n < i {
		return 0, 0, fault.New(fault.Usage, "shard %q is not of the form i/n with i from 1 to n", text)
	}
	return i, n, nil
}

// parseBytes reads 5GB, 500MiB, 1000.
func parseBytes(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	units := []struct {
		suffix string
		factor int64
	}{{"TIB", 1 << 40}, {"GIB", 1 << 30}, {"MIB", 1 << 20}, {"KIB", 1 << 10},
		{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1}, {"", 1}}
	up := strings.ToUpper(strings.TrimSpace(text))
	for _, u := range units {
		num, ok := strings.CutSuffix(up, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if err != nil || v <= 0 || v*float64(u.factor) > 1<<62 {
			break
		}
		return int64(v * float64(u.factor)), nil
	}
	return 0, fault.New(fault.Usage, "size %q is not a number of bytes such as 5GB or 512MiB", text)
}
