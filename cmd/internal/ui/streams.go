package ui

import (
	"io"
	"os"
	"strconv"

	"golang.org/x/term"
)

// Streams are the three standard streams with what is known of who listens.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer

	OutTTY bool // a person reads stdout
	ErrTTY bool // a person reads stderr
	CI     bool // a build log is written: no cursor movement
	Color  bool // colour is welcome on a terminal
	Width  int  // columns of the terminal

	Quiet   bool // -q: errors only
	Verbose bool // -v: also details
	Mode    ProgressMode
}

// System gives the process's own streams.
func System() *Streams {
	s := &Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		OutTTY: term.IsTerminal(int(os.Stdout.Fd())),
		ErrTTY: term.IsTerminal(int(os.Stderr.Fd())),
		CI:     os.Getenv("CI") != "",
		Width:  80,
	}
	// https://no-color.org: any non-empty value switches colour off.
	s.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && !s.CI
	if w, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && w > 0 {
		s.Width = w
	} else if w, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && w > 0 {
		s.Width = w
	}
	return s
}

// Piped gives streams that no terminal listens to, for tests and callers in
// the same process.
func Piped(in io.Reader, out, err io.Writer) *Streams {
	return &Streams{In: in, Out: out, Err: err, Width: 80}
}

// Style is a way to set text apart.
type Style string

// The styles that commands use.
const (
	Bold   Style = "1"
	Dim    Style = "2"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
	Cyan   Style = "36"
)

// Paint styles text that goes to stdout, if that is a terminal with colour.
func (s *Streams) Paint(st Style, text string) string {
	return paint(s.Color && s.OutTTY, st, text)
}

// PaintErr styles text that goes to stderr.
func (s *Streams) PaintErr(st Style, text string) string {
	return paint(s.Color && s.ErrTTY, st, text)
}

func paint(on bool, st Style, text string) string {
	if !on || text == "" {
		return text
	}
	return "\x1b[" + string(st) + "m" + text + "\x1b[0m"
}
