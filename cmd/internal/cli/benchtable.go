package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/internal/atomicfile"
)

// write writes the files that --table and --report ask for.
func (o *benchOptions) write(rep benchReport) error {
	if o.table != "" {
		if err := writeFile(o.table, o.markdown(rep)); err != nil {
			return err
		}
	}
	if o.page == "" {
		return nil
	}
	var b bytes.Buffer
	if err := profilePage.Execute(&b, profileViews(rep.Models)); err != nil {
		return fmt.Errorf("the page of the profile: %w", err)
	}
	return writeFile(o.page, b.Bytes())
}

// writeFile writes a file, with the folder that it lies in.
func writeFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return atomicfile.WriteBytes(path, text)
}

// markdown is a table with a row per model, and what a reader must know to
// judge it.
func (o *benchOptions) markdown(rep benchReport) []byte {
	var b bytes.Buffer
	level := o.engine.cpu
	if level == "" {
		level = cpu.Native()
	}
	b.WriteString("# Benchmarks\n\n")
	o.markdownHead(&b, level, rep.peerVersion)
	fmt.Fprintf(&b, "\nMedian latencies in milliseconds, of at least %s and %s after %d for warming up.", plural(o.minRuns, "run"), o.minTime, o.warmup)
	if rep.peerVersion != "" {
		b.WriteString(" Each side has a process of its own and they take turns." +
			" The ratio is ONNX Runtime's latency divided by lathe's: above 1 lathe is faster.")
	}
	b.WriteString("\n\n")
	o.markdownRows(&b, rep)
	return b.Bytes()
}

// markdownHead says when, on what and with what the figures were measured.
func (o *benchOptions) markdownHead(b *bytes.Buffer, level, peer string) {
	date := o.date
	if date == "" {
		date = time.Now().Format(time.DateOnly)
	}
	fmt.Fprintf(b, "| | |\n|---|---|\n| date | %s |\n| machine | %s, %s, %s/%s |\n| code made for | %s |\n| lathe | %s |\n",
		date, markdownText(cpuModel()), plural(runtime.NumCPU(), "core"), runtime.GOOS, runtime.GOARCH, level, versionText())
	if peer != "" {
		fmt.Fprintf(b, "| ONNX Runtime | %s |\n", peer)
	}
	if cc, err := toolchain.Find(o.engine.compiler); err == nil {
		fmt.Fprintf(b, "| C compiler | %s |\n", markdownText(cc.Version))
	}
}

func versionText() string {
	v := readVersion()
	text := v.Version
	if len(v.Commit) >= 12 && !strings.Contains(text, v.Commit[:12]) {
		text += " (" + v.Commit[:12] + ")"
	}
	return text
}

func (o *benchOptions) markdownRows(b *bytes.Buffer, rep benchReport) {
	peer := rep.peerVersion != ""
	head, line := "| model |", "|---|"
	for _, t := range o.threads {
		head += fmt.Sprintf(" lathe, %s |", plural(t, "thread"))
		line += "---:|"
		if peer {
			head += " ONNX Runtime | ratio |"
			line += "---:|---:|"
		}
	}
	fmt.Fprintf(b, "%s\n%s\n", head, line)
	cell := func(r benchResult) string {
		switch {
		case r.Latency == nil && peer:
			return " — | — | — |"
		case r.Latency == nil:
			return " — |"
		case r.Peer == nil:
			return fmt.Sprintf(" %.3f |", r.Latency.Median)
		}
		return fmt.Sprintf(" %.3f | %.3f | %.2f |", r.Latency.Median, r.Peer.Median, *r.Ratio)
	}
	var failed []string
	for rows := range slices.Chunk(rep.Models, len(o.threads)) {
		name := displayName(rows[0].Model)
		fmt.Fprintf(b, "| %s |", markdownText(name))
		for _, r := range rows {
			b.WriteString(cell(r))
		}
		b.WriteByte('\n')
		if r := rows[0]; r.Error != "" {
			why := strings.ReplaceAll(r.Error, r.Model, name)
			failed = append(failed, fmt.Sprintf("- %s: %s\n", markdownText(name), markdownText(why)))
		}
	}
	if peer {
		b.WriteString("| **geometric mean** |")
		for _, t := range o.threads {
			g, n := rep.mean(func(r benchResult) bool { return r.Threads == t })
			if n == 0 {
				b.WriteString(" | | — |")
				continue
			}
			fmt.Fprintf(b, " | | **%.2f** |", g)
		}
		b.WriteByte('\n')
	}
	if len(failed) > 0 {
		fmt.Fprintf(b, "\nNot timed:\n\n%s", strings.Join(failed, ""))
	}
}

// displayName is a model without its folder's place: model.onnx is named by
// the folder that it lies in.
func displayName(path string) string {
	name := symbolName(path)
	if dir := filepath.Base(filepath.Dir(filepath.Clean(path))); name == "model" && dir != "." && dir != string(filepath.Separator) {
		return dir
	}
	return name
}

// markdownText keeps text within its cell.
func markdownText(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "<", "&lt;", "`", "\\`").Replace(s)
}

// cpuModel is the name that the system gives the processor, else the level.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return cpu.Native()
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return cpu.Native()
}
