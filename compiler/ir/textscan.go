package ir

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// TextError is what is wrong in a graph's text, and in which line.
type TextError struct {
	Line int
	Msg  string
}

func (e *TextError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Msg) }

// scanner reads words and literals; it panics with *TextError, which Parse
// turns into an error.
type scanner struct {
	s  string
	at int
}

func (s *scanner) fail(format string, args ...any) {
	line := 1 + strings.Count(s.s[:min(s.at, len(s.s))], "\n")
	panic(&TextError{Line: line, Msg: fmt.Sprintf(format, args...)})
}

// space skips white space and // comments.
func (s *scanner) space() {
	for s.at < len(s.s) {
		switch c := s.s[s.at]; {
		case c == ' ' || c == '\n' || c == '\t' || c == '\r':
			s.at++
		case strings.HasPrefix(s.s[s.at:], "//"):
			n := strings.IndexByte(s.s[s.at:], '\n')
			if n < 0 {
				n = len(s.s) - s.at
			}
			s.at += n
		default:
			return
		}
	}
}

// peek is the next byte after white space; 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	return s.here()
}

// here is the next byte, white space included; 0 at the end.
func (s *scanner) here() byte {
	if s.at < len(s.s) {
		return s.s[s.at]
	}
	return 0
}

// accept takes a punctuation if it is next.
func (s *scanner) accept(p string) bool {
	s.space()
	if strings.HasPrefix(s.s[s.at:], p) {
		s.at += len(p)
		return true
	}
	return false
}

func (s *scanner) expect(p string) {
	if !s.accept(p) {
		s.fail("expected %q, found %s", p, s.found())
	}
}

func (s *scanner) found() string {
	s.space()
	rest := s.s[s.at:]
	if rest == "" {
		return "the end of the text"
	}
	return strconv.Quote(rest[:min(12, len(rest))])
}

// word takes an identifier; "" if none is next.
func (s *scanner) word() string {
	s.space()
	n := 0
	for s.at+n < len(s.s) && (isLetter(s.s[s.at+n]) || n > 0 && isDigit(s.s[s.at+n])) {
		n++
	}
	w := s.s[s.at : s.at+n]
	s.at += n
	return w
}

func isLetter(c byte) bool { return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

// acceptWord takes an identifier if it is the next one.
func (s *scanner) acceptWord(w string) bool {
	at := s.at
	if s.word() == w {
		return true
	}
	s.at = at
	return false
}

func (s *scanner) expectWord(w string) {
	if !s.acceptWord(w) {
		s.fail("expected %q, found %s", w, s.found())
	}
}

// str takes a quoted string.
func (s *scanner) str() string {
	if s.peek() != '"' {
		s.fail("expected a quoted string, found %s", s.found())
	}
	q, err := strconv.QuotedPrefix(s.s[s.at:])
	if err != nil {
		s.fail("the string is not closed or has a bad escape")
	}
	v, err := strconv.Unquote(q)
	if err != nil {
		s.fail("the string has a bad escape")
	}
	s.at += len(q)
	return v
}

// name takes an identifier or a quoted string.
func (s *scanner) name() string {
	if s.peek() == '"' {
		return s.str()
	}
	w := s.word()
	if w == "" {
		s.fail("expected a name, found %s", s.found())
	}
	return w
}

// digits takes a decimal number without sign.
func (s *scanner) digits() int {
	start := s.at
	for isDigit(s.here()) {
		s.at++
	}
	n, err := strconv.Atoi(s.s[start:s.at])
	if err != nil {
		s.fail("expected a number, found %s", s.found())
	}
	return n
}

// number takes the text of a number up to the next delimiter.
func (s *scanner) number() string {
	s.space()
	start := s.at
	for s.at < len(s.s) && !strings.ContainsRune(" \t\r\n,]}){(", rune(s.s[s.at])) {
		s.at++
	}
	if start == s.at {
		s.fail("expected a number, found %s", s.found())
	}
	return s.s[start:s.at]
}

// hexBytes takes x"…", base64Bytes b64"…".
func (s *scanner) hexBytes() []byte {
	s.expect(`x"`)
	return s.encoded(hex.DecodeString)
}

func (s *scanner) base64Bytes() []byte {
	s.expect(`b64"`)
	return s.encoded(base64.StdEncoding.Strict().DecodeString)
}

func (s *scanner) encoded(decode func(string) ([]byte, error)) []byte {
	n := strings.IndexByte(s.s[s.at:], '"')
	if n < 0 {
		s.fail("the bytes are not closed")
	}
	b, err := decode(s.s[s.at : s.at+n])
	if err != nil {
		s.fail("the bytes are damaged")
	}
	s.at += n + 1
	return b
}
