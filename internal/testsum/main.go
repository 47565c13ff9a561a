// Command testsum runs go test and sums up what it says: a line per package,
// every failure in full, every skip with its reason, and the counts. It knows
// nothing but the output of go test -json.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sort"
	"strings"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run starts go test -json with the given arguments.
func run(args []string, stdout, stderr io.Writer) int {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(stderr, "testsum:", err)
		return 2
	}
	s := newSummary(stdout)
	s.read(out)
	err = cmd.Wait()
	ok := s.finish()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(stderr, "testsum:", err)
	}
	if err != nil || !ok {
		return 1
	}
	return 0
}

// event is a line of go test -json (go doc test2json); build output has
// ImportPath instead of Package.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Elapsed    float64
	Output     string
}

type key struct{ pkg, test string }

// summary collects the events of all packages.
type summary struct {
	out    io.Writer
	text   map[key]*strings.Builder
	build  strings.Builder
	skips  []key
	passed int
	failed int
	broken int // packages that fail without a failing test: they do not build
}

func newSummary(out io.Writer) *summary {
	return &summary{out: out, text: map[key]*strings.Builder{}}
}

func (s *summary) read(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		var e event
		switch {
		case strings.TrimSpace(line) == "":
		case json.Unmarshal([]byte(line), &e) == nil:
			s.add(e)
		default:
			fmt.Fprint(s.out, line)
		}
		if err != nil {
			return
		}
	}
}

func (s *summary) add(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		s.build.WriteString(e.Output)
	case "output":
		if s.text[k] == nil {
			s.text[k] = &strings.Builder{}
		}
		s.text[k].WriteString(e.Output)
	case "pass":
		if e.Test == "" {
			s.packageLine(e, "ok")
			return
		}
		s.passed++
	case "skip":
		if e.Test == "" {
			return // a package without tests
		}
		s.skips = append(s.skips, k)
	case "fail":
		if e.Test != "" {
			s.failed++
			fmt.Fprint(s.out, s.said(k))
			return
		}
		s.broken++
		fmt.Fprint(s.out, s.said(k))
		s.packageLine(e, "FAIL")
	}
}

func (s *summary) said(k key) string {
	if b := s.text[k]; b != nil {
		return b.String()
	}
	return ""
}

func (s *summary) packageLine(e event, state string) {
	cached := ""
	if strings.Contains(s.said(key{e.Package, ""}), "(cached)") {
		cached = " (cached)"
	}
	fmt.Fprintf(s.out, "%-4s %-70s %6.1fs%s\n", state, e.Package, e.Elapsed, cached)
}

// finish prints the skips and the counts; it reports whether all is well.
func (s *summary) finish() bool {
	fmt.Fprint(s.out, s.build.String())
	sort.Slice(s.skips, func(i, j int) bool {
		return s.skips[i].pkg+s.skips[i].test < s.skips[j].pkg+s.skips[j].test
	})
	for _, k := range s.skips {
		fmt.Fprintf(s.out, "skip %s %s: %s\n", k.pkg, k.test, reason(s.said(k)))
	}
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skips))
	return s.failed == 0 && s.broken == 0 && s.passed > 0
}

// reason is what t.Skip printed: the output without go test's own lines and
// the file position.
func reason(text string) string {
	var said []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		if at, rest, ok := strings.Cut(line, ": "); ok && strings.Contains(at, ".go:") {
			line = rest
		}
		said = append(said, line)
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}
