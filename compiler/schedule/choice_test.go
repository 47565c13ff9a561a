package schedule_test

import (
	"testing"

	"github.com/lathe-ml/lathe/compiler/schedule"
)

func TestChoiceText(t *testing.T) {
	all := schedule.Choice{Form: "direct", OB: 2, TR: 1, TW: 14, Rows: 3, Prefetch: 1024, Order: schedule.PointsFirst}
	const text = "form=direct ob=2 tr=1 tw=14 rows=3 prefetch=1024 order=points"
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
	full, err := schedule.Parse("form=direct ob=2 tr=1 tw=14 order=out")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"":                           true,
		"form=direct":                true,
		"ob=2 order=out":             true,
		"form=direct ob=2 tr=1 tw=7": false,
		"prefetch=1024":              false,
		"form=pixels":                false,
		"order=points":               false,
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
