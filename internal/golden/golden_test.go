package golden

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fake records what a case reports, without failing this test.
type fake struct {
	testing.TB
	errors []string
}

func (f *fake) Helper()                   {}
func (f *fake) Error(...any)              { f.errors = append(f.errors, "error") }
func (f *fake) Errorf(s string, a ...any) { f.errors = append(f.errors, s) }
func (f *fake) Fatalf(s string, a ...any) { panic("fatal: " + s) }

func caseOf(t *testing.T, text string) (*Case, *fake, string) {
	t.Helper()
	p := filepath.Join(t.TempDir(), "c.txtar")
	if err := os.WriteFile(p, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	f := &fake{}
	c, err := open(f, p)
	if err != nil {
		t.Fatal(err)
	}
	return c, f, p
}

const sample = "upper -x\n-- in --\na\nb\n-- out --\nA\nB\n"

func TestCase(t *testing.T) {
	c, f, _ := caseOf(t, sample)
	if got := c.Command(); len(got) != 2 || got[1] != "-x" {
		t.Errorf("command %q", got)
	}
	c.Want("out", strings.ToUpper(c.Input("in")))
	c.finish()
	if len(f.errors) != 0 {
		t.Errorf("errors %q", f.errors)
	}
}

func TestCaseFails(t *testing.T) {
	c, f, p := caseOf(t, sample)
	c.Want("out", "A\nC\n")
	c.Want("report", "x")
	c.finish() // nobody looked at "in"
	if len(f.errors) != 3 {
		t.Errorf("errors %q", f.errors)
	}
	if b, _ := os.ReadFile(p); string(b) != sample {
		t.Error("a failing test rewrote its file")
	}
}

func TestUpdate(t *testing.T) {
	*update = true
	defer func() { *update = false }()
	c, f, p := caseOf(t, sample)
	c.Input("in")
	c.Want("out", "C")
	c.Want("report", "new")
	c.finish()
	want := "upper -x\n-- in --\na\nb\n-- out --\nC\n-- report --\nnew\n"
	if b, _ := os.ReadFile(p); string(b) != want || len(f.errors) != 0 {
		t.Errorf("%q %q", b, f.errors)
	}
}

func TestDiff(t *testing.T) {
	got := Diff("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\n5\n6\n7\nX\n9\n")
	if want := " 5\n 6\n 7\n-8\n+X\n 9\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if d := Diff("same\n", "same\n"); d != "" {
		t.Errorf("equal texts differ: %q", d)
	}
}
