package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Printf writes data to stdout.
func (s *Streams) Printf(format string, args ...any) {
	fmt.Fprintf(s.Out, format, args...)
}

// Infof tells a person what happened; -q silences it.
func (s *Streams) Infof(format string, args ...any) {
	if !s.Quiet {
		fmt.Fprintln(s.Err, Clean(fmt.Sprintf(format, args...)))
	}
}

// Detailf tells what only -v asks for.
func (s *Streams) Detailf(format string, args ...any) {
	if s.Verbose && !s.Quiet {
		fmt.Fprintln(s.Err, s.PaintErr(Dim, Clean(fmt.Sprintf(format, args...))))
	}
}

// Warnf tells of something that the user should look at; -q does not silence it.
func (s *Streams) Warnf(format string, args ...any) {
	fmt.Fprintln(s.Err, s.PaintErr(Yellow, "warning: ")+Clean(fmt.Sprintf(format, args...)))
}

// JSON prints v on stdout, indented, with its fields in declaration order.
func (s *Streams) JSON(v any) error { return WriteJSON(s.Out, v) }

// WriteJSON prints v, indented, and leaves <, > and & as they are.
func WriteJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Clean makes text from a model safe for a terminal: control characters, which
// could move the cursor or recolour what follows, become visible escapes.
func Clean(text string) string {
	if strings.IndexFunc(text, isUnsafe) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if isUnsafe(r) {
			fmt.Fprintf(&b, "\\x%02x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func isUnsafe(r rune) bool {
	return r != '\n' && r != '\t' && (unicode.IsControl(r) || r == '\u202e' || r == '\u2028')
}
