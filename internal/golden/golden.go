package golden

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the expected sections of txtar goldens")

// Case is one txtar file. A test reads its inputs and states its results; a
// result that differs from the section of that name fails the test, or
// replaces the section under -update.
type Case struct {
	t    testing.TB
	path string
	ar   *txtar.Archive
	dirt bool
	seen map[string]bool
}

// Run runs fn on each *.txtar file below dir as a subtest, in sorted order. A
// folder without any is a failure: a walk that finds nothing tests nothing.
func Run(t *testing.T, dir string, fn func(t *testing.T, c *Case)) {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(p, ".txtar") {
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no *.txtar below %s", dir)
	}
	sort.Strings(files)
	for _, f := range files {
		rel, err := filepath.Rel(dir, f)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.ToSlash(rel), ".txtar"), func(t *testing.T) {
			c, err := open(t, f)
			if err != nil {
				t.Fatal(err)
			}
			fn(t, c)
			c.finish()
		})
	}
}

func open(t testing.TB, path string) (*Case, error) {
	ar, err := txtar.ParseFile(path)
	if err != nil {
		return nil, err
	}
	return &Case{t: t, path: path, ar: ar, seen: map[string]bool{}}, nil
}

// Command is the first line of the comment split at spaces: what to run and
// its options.
func (c *Case) Command() []string {
	line, _, _ := strings.Cut(string(c.ar.Comment), "\n")
	return strings.Fields(line)
}

// Has reports whether the file has a section.
func (c *Case) Has(section string) bool { return c.find(section) != nil }

// Input gives a section; a missing one fails the test.
func (c *Case) Input(section string) string {
	c.t.Helper()
	f := c.find(section)
	if f == nil {
		c.t.Fatalf("%s: no section %q", c.path, section)
	}
	c.seen[section] = true
	return string(f.Data)
}

func (c *Case) find(section string) *txtar.File {
	for i := range c.ar.Files {
		if c.ar.Files[i].Name == section {
			return &c.ar.Files[i]
		}
	}
	return nil
}

// Want states the result for a section.
func (c *Case) Want(section, got string) {
	c.t.Helper()
	c.seen[section] = true
	if got != "" && !strings.HasSuffix(got, "\n") {
		got += "\n"
	}
	f := c.find(section)
	switch {
	case f != nil && string(f.Data) == got:
		return
	case *update && f != nil:
		f.Data, c.dirt = []byte(got), true
	case *update:
		c.ar.Files = append(c.ar.Files, txtar.File{Name: section, Data: []byte(got)})
		c.dirt = true
	case f == nil:
		c.t.Errorf("%s: no section %q for this result (-update adds it):\n%s", c.path, section, got)
	default:
		c.t.Errorf("%s: section %q differs (-want +got; -update rewrites it):\n%s", c.path, section, Diff(string(f.Data), got))
	}
}

// finish holds that each section was looked at: a forgotten one would be an
// expectation that nothing checks.
func (c *Case) finish() {
	c.t.Helper()
	for _, f := range c.ar.Files {
		if !c.seen[f.Name] {
			c.t.Errorf("%s: nothing looks at section %q", c.path, f.Name)
		}
	}
	if c.dirt {
		if err := os.WriteFile(c.path, txtar.Format(c.ar), 0o666); err != nil {
			c.t.Error(err)
		}
	}
}

// context is how many equal lines a diff shows around a change.
const context = 3

// Diff shows the lines in which two texts differ, by their longest common
// subsequence, with a little context.
func Diff(want, got string) string {
	a, b := lines(want), lines(got)
	// common[i][j] is the length of the longest common subsequence of a[i:], b[j:].
	common := make([][]int32, len(a)+1)
	for i := range common {
		common[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	type edit struct {
		mark byte
		text string
	}
	var edits []edit
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			edits = append(edits, edit{' ', a[i]})
			i, j = i+1, j+1
		case j == len(b) || (i < len(a) && common[i+1][j] >= common[i][j+1]):
			edits = append(edits, edit{'-', a[i]})
			i++
		default:
			edits = append(edits, edit{'+', b[j]})
			j++
		}
	}
	near := make([]bool, len(edits))
	for i, e := range edits {
		if e.mark != ' ' {
			for k := max(0, i-context); k <= min(len(edits)-1, i+context); k++ {
				near[k] = true
			}
		}
	}
	var out bytes.Buffer
	for i, e := range edits {
		if near[i] {
			fmt.Fprintf(&out, "%c%s\n", e.mark, e.text)
		} else if i > 0 && near[i-1] {
			out.WriteString(" …\n")
		}
	}
	return out.String()
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}
