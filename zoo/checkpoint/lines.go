package checkpoint

import (
	"bufio"
	"io"
)

// lines writes text and remembers the first error.
type lines struct {
	w   *bufio.Writer
	err error
}

func newLines(w io.Writer) *lines { return &lines{w: bufio.NewWriterSize(w, 1<<16)} }

func (l *lines) print(s string) {
	if l.err == nil {
		_, l.err = l.w.WriteString(s)
	}
}

func (l *lines) flush() error {
	if l.err == nil {
		l.err = l.w.Flush()
	}
	return l.err
}
