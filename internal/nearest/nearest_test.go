package nearest

import "testing"

func TestFind(t *testing.T) {
	words := []string{"compile", "inspect", "verify", "run", "bench", "plan"}
	for in, want := range map[string]string{
		"complie": "compile", "inspct": "inspect", "rnu": "run", "compile": "compile",
		"xyzzy": "", "benhc": "bench", "plna": "plan", "verrify": "verify",
	} {
		if got := Find(in, words); got != want {
			t.Errorf("Find(%q) = %q, want %q", in, got, want)
		}
	}
	// kitten → sitting is the textbook distance of 3.
	if d := distance([]rune("kitten"), []rune("sitting")); d != 3 {
		t.Errorf("distance %d", d)
	}
}
