package cli

import (
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/internal/atomicfile"
)

func newBookCmd(f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "book",
		Short: "Show, merge, export and prune record books of lathe tune",
		Long: `book works on record books: files of JSON lines, each a schedule of one structure
of kernels on one target, with its time and the heuristic's in the same
measurement. Where no book is named it is the default one, schedules.jsonl in
lathe's cache folder.

A record is kept if the whole program was faster with it; the others are known to
have been tried, so that no search tries them again. Damaged lines are told and
left out.`,
		Example: `  lathe book show
  lathe book merge mine.jsonl yours.jsonl -o all.jsonl
  lathe book export -o ship.jsonl
  lathe book prune --tried`,
	}
	cmd.AddCommand(newBookShowCmd(f), newBookMergeCmd(f), newBookExportCmd(f), newBookPruneCmd(f))
	return cmd
}

// bookFilter says which records are wanted.
type bookFilter struct {
	cpu, model string
	tried      bool
}

func (b *bookFilter) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.cpu, "cpu", "", "only records for this CPU level")
	cmd.Flags().StringVar(&b.model, "processor", "", "only records from this model of processor")
}

func (b bookFilter) wants(r schedule.Record) bool {
	return (b.cpu == "" || r.CPU == b.cpu) && (b.model == "" || r.Model == b.model) && (b.tried || r.Kept)
}

// namedBook reads the book of the first argument, or the default one.
func (f *factory) namedBook(a []string) (*schedule.Book, string, error) {
	name := defaultBook
	if len(a) > 0 {
		name = a[0]
	}
	b, err := f.openBook(name)
	if err != nil {
		return nil, "", err
	}
	path, err := f.bookPath(name)
	return b.Book, path, err
}

// bookInfo is a book in --json.
type bookInfo struct {
	Book    string            `json:"book"`
	Lines   int               `json:"records"`
	Kept    int               `json:"kept"`
	Stale   int               `json:"stale"` // of another version of lathe's schedules
	Records []schedule.Record `json:"list,omitempty"`
}

func describeBook(path string, b *schedule.Book) bookInfo {
	info := bookInfo{Book: path, Lines: b.Len()}
	for _, r := range b.Records() {
		if r.Stale() {
			info.Stale++
		} else if r.Kept {
			info.Kept++
		}
	}
	return info
}

func (f *factory) printBook(info bookInfo, what string) error {
	if f.json {
		return f.JSON(info)
	}
	f.Infof("%s%s: %s, %d kept, %d stale", what, info.Book, plural(info.Lines, "record"), info.Kept, info.Stale)
	return nil
}

func newBookShowCmd(f *factory) *cobra.Command {
	var want bookFilter
	cmd := &cobra.Command{
		Use:   "show [BOOK]",
		Short: "Print the records of a book",
		Example: `  lathe book show
  lathe book show book.jsonl --cpu x86-64-v4 --tried --json`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			b, path, err := f.namedBook(a)
			if err != nil {
				return err
			}
			info := describeBook(path, b)
			info.Records = b.Select(want.wants).Records()
			if f.json {
				return f.JSON(info)
			}
			t := f.Table(">gain %", ">µs", ">runs", "cpu", "processor", ">threads", "precision", "", "schedule", "site")
			for _, r := range info.Records {
				mark := "tried"
				switch {
				case r.Stale():
					mark = "stale"
				case r.Kept:
					mark = "kept"
				}
				t.Row(fmt.Sprintf("%.1f", 100*(1-r.Ratio())), strconv.FormatFloat(r.Micros, 'f', 1, 64), itoa(r.Runs),
					r.CPU, r.Model, itoa(r.Threads), r.Precision, mark, r.Schedule, r.Key)
			}
			t.Print()
			return f.printBook(info, "")
		},
	}
	want.register(cmd)
	cmd.Flags().BoolVar(&want.tried, "tried", false, "also what was tried and not kept")
	return cmd
}

func newBookMergeCmd(f *factory) *cobra.Command {
	var out string
	var force bool
	cmd := &cobra.Command{
		Use:   "merge BOOK…",
		Short: "Make one book of several",
		Long: `merge writes a book with the records of all: of measurements of the same thing,
the one of more runs. The order does not matter.`,
		Example: "  lathe book merge mine.jsonl yours.jsonl -o all.jsonl",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			all := &schedule.Book{}
			for _, name := range a {
				b, err := f.openBook(name)
				if err != nil {
					return err
				}
				all.Merge(b.Book)
			}
			return f.writeBook(all, out, force)
		},
	}
	outputFlags(cmd, &out, &force)
	return cmd
}

func outputFlags(cmd *cobra.Command, out *string, force *bool) {
	cmd.Flags().StringVarP(out, "output", "o", "", "book that is written")
	cmd.Flags().BoolVar(force, "force", false, "replace a file that exists")
}

func (f *factory) writeBook(b *schedule.Book, path string, force bool) error {
	if path == "" {
		return fault.New(fault.Usage, "no output").Hint("give a file with -o BOOK")
	}
	if _, err := os.Lstat(path); err == nil && !force {
		return &atomicfile.ExistsError{Path: path}
	}
	if err := atomicfile.WriteBytes(path, b.Bytes()); err != nil {
		return err
	}
	return f.printBook(describeBook(path, b), "wrote ")
}

func newBookExportCmd(f *factory) *cobra.Command {
	var want bookFilter
	var out string
	var force bool
	cmd := &cobra.Command{
		Use:   "export [BOOK]",
		Short: "Write a book to ship: the best record of each site and target",
		Example: `  lathe book export -o ship.jsonl
  lathe book export book.jsonl --cpu x86-64-v4 -o v4.jsonl`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			b, _, err := f.namedBook(a)
			if err != nil {
				return err
			}
			best := &schedule.Book{}
			for _, r := range b.Records() {
				if got := b.Best(r.Target)[r.Key]; want.wants(r) && got == r {
					best.Add(r)
				}
			}
			return f.writeBook(best, out, force)
		},
	}
	want.register(cmd)
	outputFlags(cmd, &out, &force)
	return cmd
}

func newBookPruneCmd(f *factory) *cobra.Command {
	var tried bool
	cmd := &cobra.Command{
		Use:   "prune [BOOK]",
		Short: "Remove from a book what no compilation can use",
		Long: `prune removes the records of other versions of lathe's schedules, and damaged
lines. With --tried it also removes what was tried and not kept: a later search
may then try it again.`,
		Example: `  lathe book prune
  lathe book prune book.jsonl --tried`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			b, path, err := f.namedBook(a)
			if err != nil {
				return err
			}
			left := b.Select(func(r schedule.Record) bool { return !r.Stale() && (r.Kept || !tried) })
			if b.Len() > 0 {
				if err := atomicfile.WriteBytes(path, left.Bytes()); err != nil {
					return err
				}
			}
			return f.printBook(describeBook(path, left), fmt.Sprintf("removed %s from ", plural(b.Len()-left.Len(), "record")))
		},
	}
	cmd.Flags().BoolVar(&tried, "tried", false, "also what was tried and not kept")
	return cmd
}
