package ui

import (
	"strings"
	"unicode/utf8"
)

// Table collects rows: printed aligned and with a header where a person reads,
// as tab-separated rows without a header in a pipe.
type Table struct {
	s     *Streams
	head  []string
	right []bool
	rows  [][]string
}

// Table starts a table. A column whose name begins with ">" is aligned right.
func (s *Streams) Table(columns ...string) *Table {
	t := &Table{s: s}
	for _, c := range columns {
		name, isRight := strings.CutPrefix(c, ">")
		t.head = append(t.head, name)
		t.right = append(t.right, isRight)
	}
	return t
}

// Row adds a row; missing cells are empty.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(t.head))
	for i, c := range cells {
		row[i] = strings.Map(func(r rune) rune {
			if r == '\t' || r == '\n' {
				return ' '
			}
			return r
		}, Clean(c))
	}
	t.rows = append(t.rows, row)
}

// Len is the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// Print writes the table to stdout.
func (t *Table) Print() {
	if !t.s.OutTTY {
		for _, r := range t.rows {
			t.s.Printf("%s\n", strings.Join(r, "\t"))
		}
		return
	}
	width := make([]int, len(t.head))
	for _, r := range append([][]string{t.head}, t.rows...) {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	head := make([]string, len(t.head))
	for i, h := range t.head {
		head[i] = strings.ToUpper(h)
	}
	t.s.Printf("%s\n", t.s.Paint(Dim, t.line(head, width)))
	for _, r := range t.rows {
		t.s.Printf("%s\n", t.line(r, width))
	}
}

func (t *Table) line(cells []string, width []int) string {
	var b strings.Builder
	for i, c := range cells {
		pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
		if i > 0 {
			b.WriteString("  ")
		}
		if t.right[i] {
			b.WriteString(pad + c)
		} else {
			b.WriteString(c + pad)
		}
	}
	return strings.TrimRight(b.String(), " ")
}
