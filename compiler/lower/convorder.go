package lower

import (
	"github.com/lathe-ml/lathe/compiler/loop"
)

// order is the loop that threads share: over images, bands of rows, groups of
// output blocks and the rows of a band. A thread that has the same bands in one
// layer as in the next finds most of what it reads in its own cache. Weights are
// read again for each band: where they fill a good part of the second cache, all
// rows are one band.
func (t *convTile) order(n, groups int) (v *loop.Var, image, group, row *loop.Expr) {
	const share = 16 // flattened planes, which are one row, are cut into so many parts that threads can share
	rows := t.strips()
	many := 4*t.w.Len() > 256<<10
	if t.flat {
		full, cuts := max(t.cols/t.shape.TW, 1), share
		if many {
			cuts = (share + n*groups - 1) / (n * groups)
		}
		t.band = (full + min(cuts, full) - 1) / min(cuts, full)
		rows = (full + t.band - 1) / t.band
	}
	per := rows // of a band
	if !many {
		per = rows / bands(rows)
	}
	v = t.k.fresh("t", n*groups*rows)
	at := loop.Div(loop.V(v), per)
	group, at = loop.Mod(at, groups), loop.Div(at, groups)
	row = loop.Add(loop.Mul(loop.Mod(at, rows/per), per), loop.Mod(loop.V(v), per))
	return v, loop.Div(at, rows/per), group, row
}

// bands is into how many equal bands rows are cut: four or a few more.
func bands(rows int) int {
	for b := 4; b <= 16 && b <= rows; b++ {
		if rows%b == 0 {
			return b
		}
	}
	return 1
}

// bandOf is the work on one part of a flattened plane.
func (t *convTile) bandOf(ob int, image, block, band *loop.Expr) []loop.Stmt {
	tw := t.shape.TW
	full, rest := t.cols/tw, t.cols%tw
	tiles := func(n int) []loop.Stmt {
		if n == 0 {
			return nil
		}
		c := t.k.fresh("x", n)
		at := loop.Mul(loop.Add(loop.Mul(band, t.band), loop.V(c)), tw)
		return loop.Nest([]*loop.Var{c}, []loop.LoopKind{loop.Serial}, t.tileAt(ob, 1, tw, image, block, loop.Int(0), at)...)
	}
	whole, bands := full/t.band, max((full+t.band-1)/t.band, 1)
	if rest == 0 && whole == bands {
		return tiles(t.band)
	}
	return choice(band, bands-1, bands, func() []loop.Stmt { return tiles(t.band) }, func() []loop.Stmt {
		body := tiles(full - (bands-1)*t.band)
		if rest > 0 {
			body = append(body, t.tileAt(ob, 1, rest, image, block, loop.Int(0), loop.Int(t.cols-rest))...)
		}
		return body
	})
}
