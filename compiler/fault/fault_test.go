package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestErrorSentence(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{New(BadModel, "raw data has %d bytes", 3), "raw data has 3 bytes"},
		{New(BadModel, "truncated").InFile("m.onnx"), "m.onnx: truncated"},
		{New(Unsupported, "mode %q", "x").InFile("m.onnx").AtNode("c1", "Conv"), `m.onnx: node "c1" (Conv): mode "x"`},
		{New(Unsupported, "unknown").AtNode("", "com.x.Y"), "op com.x.Y: unknown"},
		{New(BadModel, "no name").AtNode("n\n\"", ""), `node "n\n\"": no name`},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestChain(t *testing.T) {
	inner := New(BadModel, "cannot read: %w", fs.ErrNotExist).Hint("check %s", "the path")
	outer := fmt.Errorf("weights: %w", inner)
	if KindOf(outer) != BadModel || !Is(outer, BadModel) || HintOf(outer) != "check the path" || !errors.Is(outer, fs.ErrNotExist) {
		t.Errorf("kind %s, hint %q", KindOf(outer), HintOf(outer))
	}
	// The outermost class decides; the hint is the first one found.
	raised := New(Usage, "bad flag: %w", outer)
	if KindOf(raised) != Usage || HintOf(raised) != "check the path" {
		t.Errorf("kind %s, hint %q", KindOf(raised), HintOf(raised))
	}
	if KindOf(errors.New("plain")) != Internal || Is(nil, Internal) {
		t.Error("an unclassed error is internal, nil is nothing")
	}
}
