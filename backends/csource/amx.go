package csource

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
)

// unitRows gives the rows of the tiles of a body that are for the matrix unit,
// 0 if there are none; loops of a team are not part of it, but the body of one
// may be given.
func unitRows(body []loop.Stmt, traits backend.Traits) int {
	rows := 0
	take := func(n int) {
		if n > 0 && rows > 0 && n != rows {
			panic(fmt.Sprintf("BUG: csource: matrix tiles of %d and of %d rows in one kernel", rows, n))
		}
		rows = max(rows, n)
	}
	for _, s := range body {
		switch s := s.(type) {
		case *loop.For:
			if !s.Team {
				take(unitRows(s.Body, traits))
			}
		case *loop.Cond:
			take(unitRows(s.Then, traits))
			take(unitRows(s.Else, traits))
		case *loop.Tile:
			if onUnit(s, traits) {
				take(s.Rows)
			}
		}
	}
	return rows
}

// usesUnit reports whether any part of a body is for the matrix unit.
func usesUnit(body []loop.Stmt, traits backend.Traits) bool {
	for _, s := range body {
		switch s := s.(type) {
		case *loop.For:
			if usesUnit(s.Body, traits) {
				return true
			}
		case *loop.Cond:
			if usesUnit(s.Then, traits) || usesUnit(s.Else, traits) {
				return true
			}
		case *loop.Tile:
			if onUnit(s, traits) {
				return true
			}
		}
	}
	return false
}

// onUnit prints the body of a function: a thread configures the unit's tiles
// before it needs them and gives them back, so that the system need not save
// them.
func (p *printer) onUnit(body []loop.Stmt, tiles *tilePrinter) {
	outer := p.rows
	p.rows = unitRows(body, tiles.traits)
	if p.rows > 0 {
		p.line("amx_config(%d);", p.rows)
	}
	p.body(body, tiles)
	if p.rows > 0 {
		p.line("amx_release();")
	}
	p.rows = outer
}

// unitHeader prints what kernels for the matrix unit include.
func unitHeader(kernels []*loop.Kernel, t backend.Traits) string {
	for _, k := range kernels {
		if usesUnit(k.Body, t) {
			if t.Has(backend.Emulated) {
				return "#define LATHE_AMX_EMULATED\n#include \"lathe_amx.h\"\n"
			}
			return "#include \"lathe_amx.h\"\n"
		}
	}
	return ""
}
