package cli

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/cmd/internal/ui"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/internal/atomicfile"
	"github.com/lathe-ml/lathe/zoo/checkpoint"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
)

type checkpointInspectOptions struct {
	*factory
	source  sourceFlags
	specOut string
	list    bool
}

func newCheckpointInspectCmd(f *factory) *cobra.Command {
	o := &checkpointInspectOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "inspect CHECKPOINT",
		Short: "Say what a checkpoint holds and how it is laid out",
		Long: `inspect tells format, topology, parameters, element types and what looks wrong:
missing ranks, patterns that match nothing, replicas that differ from what is recorded.

--spec-out writes the patterns that say how tensor parallelism cuts each parameter: the
checkpoint's own, or a proposal from names and shards, which a person must check. Such
a file is what --spec reads.`,
		Example: `  lathe checkpoint inspect run/
  lathe checkpoint inspect run/ --list
  lathe checkpoint inspect run/ --json
  lathe checkpoint inspect run/ --spec-out spec.yaml
  lathe checkpoint inspect run/ --spec-out -`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error { return o.run(a[0]) },
	}
	o.source.add(cmd.Flags())
	cmd.Flags().StringVar(&o.specOut, "spec-out", "", "write the patterns as YAML to this file (- for stdout)")
	cmd.Flags().BoolVar(&o.list, "list", false, "list all parameters")
	return cmd
}

func (o *checkpointInspectOptions) run(place string) error {
	c, err := o.source.open(place, checkpoint.OpenOptions{Partial: true})
	if err != nil {
		return err
	}
	defer c.Close()
	s := checkpoint.Summarize(c)
	for _, w := range c.Warnings {
		o.Warnf("%s", w)
	}
	if o.specOut != "" {
		if err := o.writeSpec(c); err != nil || o.specOut == "-" {
			return err
		}
	}
	if o.json {
		return o.JSON(s)
	}
	o.print(s)
	return nil
}

func (o *checkpointInspectOptions) print(s *checkpoint.Summary) {
	t := s.Topology
	line := func(name, format string, a ...any) { o.Printf("%-10s %s\n", name, ui.Clean(fmt.Sprintf(format, a...))) }
	line("format", "%s", strings.TrimSpace(s.Format+" "+s.Version))
	line("tag", "%s", s.Tag)
	layout := fmt.Sprintf("tp=%d pp=%d dp=%d zero=%d", t.TP, t.PP, t.DP, t.Zero)
	if t.EP > 1 {
		layout += fmt.Sprintf(" ep=%d", t.EP)
	}
	if t.Pipe {
		layout += ", pipeline module"
	}
	if t.BF16 {
		layout += ", bf16"
	}
	line("layout", "%s", layout)
	line("parameters", "%d with %d elements", s.Params, s.Elements)
	line("states", "%s", strings.Join(s.States, " "))
	line("types", "%s", strings.Join(s.DTypes, " "))
	line("data", "%d bytes in %d files", s.Bytes, s.Files)
	if len(s.Unknown) > 0 {
		line("opaque", "%s", strings.Join(s.Unknown, " "))
	}
	if !o.list {
		return
	}
	tab := o.Table("name", "shape", "kind", "pattern", ">shards")
	for _, p := range s.List {
		tab.Row(p.Name, fmt.Sprint(p.Shape), p.Kind, p.Pattern, itoa(p.Shards))
	}
	tab.Print()
}

// writeSpec prints the rules.
func (o *checkpointInspectOptions) writeSpec(c *atom.Checkpoint) error {
	s, guessed, err := checkpoint.Propose(c)
	if err != nil {
		return err
	}
	b, err := s.Print(checkpoint.Degrees(c))
	if err != nil {
		return err
	}
	if guessed {
		b = append([]byte("# Proposed from names and shards: check every rule before use.\n"), b...)
	}
	if o.specOut == "-" {
		o.Printf("%s", b)
		return nil
	}
	if _, err := os.Stat(o.specOut); err == nil {
		return fault.New(fault.Usage, "output exists already").InFile(o.specOut).Hint("give another --spec-out")
	}
	return atomicfile.WriteBytes(o.specOut, b)
}

// watcher turns bytes into steps of a progress display.
type watcher struct {
	f     *factory
	label string
	mu    sync.Mutex
	p     *ui.Progress
	rest  int64
}

// progressUnit is what a step of the display stands for.
const progressUnit = 1 << 20

func (f *factory) watch(label string) *watcher { return &watcher{f: f, label: label} }

func (w *watcher) begin(bytes int64) {
	w.p = w.f.Progress(w.label+" (MiB)", int((bytes+progressUnit-1)/progressUnit))
}

func (w *watcher) add(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest += n
	if k := w.rest / progressUnit; k > 0 {
		w.p.Add(int(k))
		w.rest -= k * progressUnit
	}
}

func (w *watcher) done() { w.p.Done() }
