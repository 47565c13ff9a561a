package artifact

import (
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

func TestRoom(t *testing.T) {
	port := func(shape ...int) []program.Port {
		return []program.Port{{Name: "x", Type: tensor.F32, Shape: shape}}
	}
	for _, c := range []struct {
		have      uint64
		workspace int
		in, out   []program.Port
		kind      fault.Kind
		says      string
	}{
		{1 << 20, 1 << 19, port(1 << 16), port(1 << 16), fault.Internal, ""}, // 512 + 256 + 256 KiB
		{1 << 20, 1<<19 + 1, port(1 << 16), port(1 << 16), fault.Toolchain, "this machine has 1"},
		{1 << 34, 0, nil, port(1 << 35), fault.Toolchain, "needs 131072 MiB"},
		{0, 1 << 60, port(1 << 39), nil, fault.Internal, ""}, // not known: nothing is refused
		{1 << 34, 0, port(-1), nil, fault.BadModel, `shape of "x"`},
		{1 << 34, 0, port(1<<40, 1<<40), nil, fault.BadModel, `shape of "x"`},
	} {
		err := checkRoom(c.have, c.workspace, c.in, c.out)
		if (err == nil) != (c.kind == fault.Internal) || err != nil && (fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%d of %d: %v", c.workspace, c.have, err)
		}
	}
}
