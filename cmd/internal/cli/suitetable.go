package cli

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/backends/cpu"
)

func (o *benchOptions) printSuite(rep *suiteReport) error {
	if o.json {
		return o.JSON(rep)
	}
	num := func(v float64, digits int) string { return strconv.FormatFloat(v, 'f', digits, 64) }
	t := o.Table("model", "variant", ">threads", ">median ms", ">p99", ">min", ">peer ms", ">ratio", ">error", ">same top 1 %", "note")
	for _, r := range rep.Results {
		row := []string{r.Model, r.Variant, itoa(r.Threads), "", "", "", "", "", "", "", r.Error}
		if r.Latency != nil {
			row[3], row[4], row[5], row[6], row[7] = num(r.Latency.Median, 3), num(r.Latency.P99, 3), num(r.Latency.Min, 3), num(r.Peer.Median, 3), num(*r.Ratio, 2)
		}
		if r.fidelity != nil {
			row[8], row[9] = rmsText(r.RMS), r.agreeText()
		}
		t.Row(row...)
	}
	t.Print()
	for _, sec := range rep.suite.Sections {
		for _, v := range sec.Variants {
			for _, threads := range o.threads {
				if g, n := rep.mean(of(sec.Title, "", v, threads)); n > 0 {
					o.Infof("%s, %s, %s: geometric mean of the ratios of %s: %.3f", sec.Title, v, plural(threads, "thread"), plural(n, "model"), g)
				}
			}
		}
	}
	return nil
}

// of selects results; group "" is every group.
func of(section, group string, v variant, threads int) func(suiteResult) bool {
	return func(r suiteResult) bool {
		return r.Section == section && (group == "" || r.Group == group) && r.Variant == v.String() && r.Threads == threads
	}
}

// rmsText is an error as tables show it; v may be nil.
func rmsText(v *float64) string {
	if v == nil {
		return "—"
	}
	return errorText(*v)
}

func (f *fidelity) agreeText() string {
	if f == nil || f.Agree == nil {
		return ""
	}
	return strconv.FormatFloat(*f.Agree, 'f', 1, 64)
}

// suiteMarkdown is docs/benchmarks.md.
func (o *benchOptions) suiteMarkdown(rep *suiteReport) []byte {
	var b bytes.Buffer
	b.WriteString("# Benchmarks\n\n")
	o.markdownHead(&b, cpu.Native(), rep.Peer)
	fmt.Fprintf(&b, `
Written by %smake bench-peer%s from %s.

The ratio is ONNX Runtime's median latency divided by lathe's: above 1 lathe is
faster. Latencies are in milliseconds, medians of at least %s and %s after %d for
warming up. ONNX Runtime and every variant of lathe have a process of their own
each, with the same number of threads, and run in turn. A variant is a precision
of lathe, for this machine's CPU or the level after the @; ONNX Runtime is the
same for all of them: f32, or the model's own quantization, as it is.
`, "`", "`", "`"+suiteName(o.suite)+"`", plural(o.minRuns, "run"), o.minTime, o.warmup)
	var notes []string
	for _, sec := range rep.suite.Sections {
		o.suiteMeans(&b, rep, sec)
	}
	for _, sec := range rep.suite.Sections {
		for _, threads := range o.threads {
			notes = append(notes, o.suiteSection(&b, rep, sec, threads)...)
		}
	}
	for _, sec := range rep.suite.Sections {
		o.suiteFidelity(&b, rep, sec)
	}
	o.suiteStarts(&b, rep)
	slices.Sort(notes)
	if notes = slices.Compact(notes); len(notes) > 0 {
		fmt.Fprintf(&b, "\n## Not timed\n\n%s", strings.Join(notes, ""))
	}
	return b.Bytes()
}

// suiteName is the suite's file without the place of its folder.
func suiteName(path string) string {
	parts := strings.Split(strings.ReplaceAll(path, "\\", "/"), "/")
	return strings.Join(parts[max(len(parts)-3, 0):], "/")
}

// suiteMeans are the geometric means of a section: groups by variants.
func (o *benchOptions) suiteMeans(b *bytes.Buffer, rep *suiteReport, sec *suiteSection) {
	fmt.Fprintf(b, "\n## %s: geometric means of the ratios\n\n| models | threads |", markdownText(sec.Title))
	line := "|---|---:|"
	for _, v := range sec.Variants {
		fmt.Fprintf(b, " %s |", v)
		line += "---:|"
	}
	fmt.Fprintf(b, "\n%s\n", line)
	row := func(title, group string, threads, models int) {
		fmt.Fprintf(b, "| %s (%d) | %d |", markdownText(title), models, threads)
		for _, v := range sec.Variants {
			if g, n := rep.mean(of(sec.Title, group, v, threads)); n > 0 {
				fmt.Fprintf(b, " %.2f |", g)
			} else {
				b.WriteString(" — |")
			}
		}
		b.WriteByte('\n')
	}
	all := 0
	for _, g := range sec.Groups {
		all += len(g.Models)
	}
	for _, threads := range o.threads {
		row("**all**", "", threads, all)
		for _, g := range sec.Groups {
			if len(sec.Groups) > 1 {
				row(g.Title, g.Title, threads, len(g.Models))
			}
		}
	}
}

// suiteSection is the table of a section with a number of threads; what could
// not be timed is returned as notes.
func (o *benchOptions) suiteSection(b *bytes.Buffer, rep *suiteReport, sec *suiteSection, threads int) (notes []string) {
	fmt.Fprintf(b, "\n## %s, %s\n\n| model | ONNX Runtime |", markdownText(sec.Title), plural(threads, "thread"))
	line := "|---|---:|"
	for _, v := range sec.Variants {
		fmt.Fprintf(b, " %s | ratio |", v)
		line += "---:|---:|"
	}
	fmt.Fprintf(b, "\n%s\n", line)
	for _, g := range sec.Groups {
		for _, m := range g.Models {
			cells, peer := "", "—"
			for _, v := range sec.Variants {
				r := rep.find(sec, g, m, v, threads)
				if r == nil || r.Latency == nil {
					cells += " — | — |"
				} else {
					cells += fmt.Sprintf(" %.3f | %.2f |", r.Latency.Median, *r.Ratio)
					peer = fmt.Sprintf("%.3f", r.Peer.Median)
				}
				if r != nil && r.Error != "" {
					notes = append(notes, fmt.Sprintf("- %s, %s: %s\n", markdownText(m.name()), v, markdownText(strings.ReplaceAll(r.Error, m.Path, m.name()))))
				}
			}
			fmt.Fprintf(b, "| %s | %s |%s\n", markdownText(m.name()), peer, cells)
		}
	}
	return notes
}

func (rep *suiteReport) find(sec *suiteSection, g *suiteGroup, m *suiteModel, v variant, threads int) *suiteResult {
	want := of(sec.Title, g.Title, v, threads)
	for i := range rep.Results {
		if r := &rep.Results[i]; r.Model == m.name() && want(*r) {
			return r
		}
	}
	return nil
}

// suiteFidelity is the table of errors and of classes.
func (o *benchOptions) suiteFidelity(b *bytes.Buffer, rep *suiteReport, sec *suiteSection) {
	rows, tops := "", ""
	for _, g := range sec.Groups {
		for _, m := range g.Models {
			row, top, samples, plain := "", "", 0, 0.0
			var peer *fidelity
			for _, v := range sec.Variants {
				r := rep.find(sec, g, m, v, o.threads[0])
				if r == nil || r.fidelity == nil {
					row, top = row+" — |", top+" — | — |"
					continue
				}
				peer = r.fidelity
				row += fmt.Sprintf(" %s |", rmsText(r.RMS))
				score := "—"
				if r.Top1 != nil {
					score, plain = fmt.Sprintf("%.1f", *r.Top1), *r.PlainTop
				}
				samples = r.Samples
				top += fmt.Sprintf(" %s | %s |", r.agreeText(), score)
			}
			if peer != nil {
				rows += fmt.Sprintf("| %s | %s |%s\n", markdownText(m.name()), rmsText(peer.PeerRMS), row)
			}
			if samples > 0 {
				tops += fmt.Sprintf("| %s | %d | %.1f |%s\n", markdownText(m.name()), samples, plain, top)
			}
		}
	}
	if rows == "" {
		return
	}
	fmt.Fprintf(b, `
## %s: accuracy

The error is the root mean square of the difference to the model in float64 over
that of the values, of the output where it is largest, on the inputs that are
timed.

| model | ONNX Runtime |`, markdownText(sec.Title))
	line, head, topLine := "|---|---:|", "| model | samples | f32-ieee: top 1 % |", "|---|---:|---:|"
	for _, v := range sec.Variants {
		fmt.Fprintf(b, " %s |", v)
		line += "---:|"
		head += fmt.Sprintf(" %s: same class %% | top 1 %% |", v)
		topLine += "---:|---:|"
	}
	fmt.Fprintf(b, "\n%s\n%s", line, rows)
	if tops != "" {
		fmt.Fprintf(b, "\nTrained classifiers on data sets: how often the class with the highest score is\nthat of f32-ieee, and the right one.\n\n%s\n%s\n%s", head, topLine, tops)
	}
}

// suiteStarts is the table of starts and memory.
func (o *benchOptions) suiteStarts(b *bytes.Buffer, rep *suiteReport) {
	if len(rep.Starts) == 0 {
		return
	}
	fmt.Fprintf(b, `
## Start and memory

%s, f32, medians of %d processes of each side that only open the compiled model
and run it; both ratios are lathe's to ONNX Runtime's: below 1 is better. The
start is from opening the artifact to the first result, beside the time that
ONNX Runtime takes to make a session (without a run). Memory is the highest point
of resident pages, mapped files among them, over what the process had with its
inputs in memory, and ONNX Runtime's library loaded (%.0f MiB, which are not
counted).

| model | lathe: start ms | ONNX Runtime: session ms | ratio | lathe: peak MiB | ONNX Runtime: peak MiB | ratio |
|---|---:|---:|---:|---:|---:|---:|
`, strings.ToUpper(plural(o.threads[0], "thread")[:1])+plural(o.threads[0], "thread")[1:], footprintProcesses, rep.Starts[0].PeerFootprint.Library)
	for _, s := range rep.Starts {
		memory := "—"
		if s.MemoryRatio != nil {
			memory = fmt.Sprintf("%.2f", *s.MemoryRatio)
		}
		fmt.Fprintf(b, "| %s | %.2f | %.2f | %.3f | %.1f | %.1f | %s |\n", markdownText(s.Model), s.Footprint.First, s.PeerFootprint.Open, *s.StartRatio,
			s.Footprint.Peak, s.PeerFootprint.Peak, memory)
	}
}
