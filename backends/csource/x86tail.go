package csource

import (
	"fmt"
	"strings"
)

// The last vector of a tile may have lanes that do not exist in memory: it uses
// the least register that has the others, and a mask if that has more.

// of is a register as wide as vector o needs it: few lanes cost half, or are
// loaded without what is beyond them.
func (a *asmWriter) of(o, i int) string {
	return fmt.Sprintf("%%%%%s%d", a.width(o), i)
}

// width is the least register that has the stored lanes of a vector.
func (a *asmWriter) width(o int) string {
	switch n := a.t.Stored(o); {
	case n == a.t.L || a.t.Tail > 8 || a.t.Tail > 4 && a.x.lanes == 8:
		return a.x.reg
	case n <= 4:
		return "xmm"
	}
	return "ymm"
}

// spread is how an operand in memory is spread to the lanes of vector o.
func (a *asmWriter) spread(o int) string {
	switch a.width(o) {
	case "xmm":
		return strings.Replace(a.forms.embed, "1to16", "1to4", 1)
	case "ymm":
		return strings.Replace(a.forms.embed, "1to16", "1to8", 1)
	}
	return a.forms.embed
}

// masked reports that the last vector needs a mask.
func (a *asmWriter) masked() bool { return a.x.embed && a.t.Tail > 0 && a.t.Tail != 4 && a.t.Tail != 8 }

func (a *asmWriter) mask(o int) string {
	if a.t.Stored(o) < a.t.L && a.masked() {
		return "%{%%k1%}"
	}
	return ""
}

// storeSome stores the first lanes of a register where there are no masks, and
// leaves others in it.
func (a *asmWriter) storeSome(o, reg, at int) {
	n, xmm := a.t.Stored(o), fmt.Sprintf("%%%%xmm%d", reg)
	if n >= 4 {
		a.op("vmovups %s, %d(%%[s])", xmm, at)
		if n, at = n-4, at+16; n > 0 {
			a.op("vextractf128 $1, %%%%ymm%d, %s", reg, xmm)
		}
	}
	switch n {
	case 1:
		a.op("vmovss %s, %d(%%[s])", xmm, at)
	case 2, 3:
		a.op("vmovlps %s, %d(%%[s])", xmm, at)
	}
	if n == 3 {
		a.op("vextractps $2, %s, %d(%%[s])", xmm, at+8)
	}
}
