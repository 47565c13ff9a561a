package lower

import "github.com/lathe-ml/lathe/compiler/loop"

// Products of bytes on a matrix unit: the rows of the left operand are read
// where they lie, 64 bytes at a time.

// formAMXInt8 is a contraction of bytes on a matrix unit.
const formAMXInt8 = "amx-int8"

const (
	// unitBytes is how many products of bytes the unit sums at once.
	unitBytes = 4 * loop.MatrixLanes
	// fewUnitRows is how many rows pay: a product of matrices takes as long for
	// few of them as for sixteen, as vectors do for about three.
	fewUnitRows = 4
)

// bytesOnUnit reports whether the target has a matrix unit for bytes.
func (l *lowerer) bytesOnUnit() bool { return l.o.Lanes == loop.MatrixLanes && l.has("amx-int8") }

// stripes are the rows of a tile: one or two runs next to each other, or apart.
type stripes struct{ runs, rows, gap int } // gap: from one run's first row to the other's

// tallStripes is a run of so many rows.
func tallStripes(rows int) stripes { return stripes{1, rows, rows} }

func (s stripes) points() int { return s.runs * s.rows }

// row is where point i is.
func (s stripes) row(i int) int { return i/s.rows*s.gap + i%s.rows }

// stretches are the rows that lie next to each other: the first point, its row,
// and how many there are.
func (s stripes) stretches() (list [][3]int) {
	if s.gap == s.rows {
		return [][3]int{{0, 0, s.points()}}
	}
	for i := range s.runs {
		list = append(list, [3]int{i * s.rows, i * s.gap, s.rows})
	}
	return list
}

// unitRuns cuts the rows into as few runs as the unit can take, of one size.
func (d *tiledDot) unitRuns() (runs, rows int) {
	runs = (d.m + loop.MatrixLanes - 1) / loop.MatrixLanes
	return runs, (d.m + runs - 1) / runs
}

// unitShape is a tile of two vectors of outputs and two runs.
func (d *tiledDot) unitShape(blocks int) tileShape {
	runs, rows := d.unitRuns()
	return tileShape{min(blocks, 2), 1, min(runs, 2) * rows}
}

// unitStripes are the rows of a tile, and those of the last one, which ends with
// the matrix: it begins so many rows before its place.
func (d *tiledDot) unitStripes() (whole, last stripes, before int) {
	runs, rows := d.unitRuns()
	whole = stripes{min(runs, 2), rows, rows}
	at := (d.m - 1) / whole.points() * whole.points()
	if runs%2 == 1 {
		return whole, tallStripes(rows), at - (d.m - rows)
	}
	return whole, stripes{2, rows, d.m - rows - at}, 0
}

// unitSum is what a tile sums.
func (d *tiledDot) unitSum(ob int) []loop.Red {
	g := d.kind.Group()
	step := ob * d.lanes * g // of W, from one group to the next
	return []loop.Red{{N: d.k / unitBytes, XStep: unitBytes, WStep: loop.MatrixLanes * step}, {N: loop.MatrixLanes, XStep: g, WStep: step}}
}
