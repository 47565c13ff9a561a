package schedule_test

import (
	"bytes"
	"testing"

	"github.com/lathe-ml/lathe/compiler/schedule"
)

func TestChoiceText(t *testing.T) {
	all := schedule.Choice{Form: "direct", OB: 2, TR: 1, TW: 14, Rows: 3, Prefetch: 1024}
	const text = "form=direct ob=2 tr=1 tw=14 rows=3 prefetch=1024"
	if all.String() != text {
		t.Errorf("%q", all.String())
	}
	for _, s := range []string{text, "", "ob=1", "form=pixels"} {
		c, err := schedule.Parse(s)
		if err != nil || c.String() != s {
			t.Errorf("%q became %q: %v", s, c.String(), err)
		}
	}
	for _, s := range []string{"ob", "ob=", "ob=-1", "ob=1.5", "unknown=1", "ob=99999999999999999999"} {
		if c, err := schedule.Parse(s); err == nil {
			t.Errorf("%q is read as %q", s, c)
		}
	}
}

func TestHonours(t *testing.T) {
	full, err := schedule.Parse("form=direct ob=2 tr=1 tw=14 prefetch=2048")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"":                           true,
		"form=direct":                true,
		"ob=2 prefetch=2048":         true,
		"form=direct ob=2 tr=1 tw=7": false,
		"prefetch=1024":              false,
		"form=pixels":                false,
	} {
		c, err := schedule.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := full.Honours(c); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestRetiredKnobs holds that records of a knob that is no more stay readable:
// those of what kernels are now without it, the others as a miss.
func TestRetiredKnobs(t *testing.T) {
	for text, want := range map[string]string{
		"form=direct ob=2 order=out":    "form=direct ob=2",
		"form=direct ob=2 order=points": "",
	} {
		r := record("k", text, 9, 10, true)
		line := &schedule.Book{}
		line.Add(r)
		b, bad, err := schedule.Read(bytes.NewReader(line.Bytes()))
		if err != nil || len(bad) > 0 || b.Len() != 1 {
			t.Fatalf("%q: %v %v", text, bad, err)
		}
		c, ok := b.Lookup(here)("k")
		if ok != (want != "") || c.String() != want || b.Records()[0].Stale() == ok {
			t.Errorf("%q gives %q, want %q", text, c, want)
		}
	}
}
