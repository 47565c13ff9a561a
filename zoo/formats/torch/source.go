package torch

import (
	"bytes"
	"errors"
	"io"
)

// source reads a pickle from a range of a file through a small window, so that
// a legacy file, whose pickles have no stated length, is not read whole.
type source struct {
	r        io.ReaderAt
	pos, end int64  // the next byte to read into the window, and the limit
	buf      []byte // the window
	at       int    // the next byte in it
}

const sourceWindow = 1 << 16

var errTruncated = errors.New("pickle ends in the middle of an opcode")

func newSource(r io.ReaderAt, pos, end int64) *source {
	return &source{r: r, pos: pos, end: end}
}

// offset is the position in the file of the next byte.
func (s *source) offset() int64 { return s.pos - int64(len(s.buf)-s.at) }

// left is the number of bytes before the limit.
func (s *source) left() int64 { return s.end - s.offset() }

func (s *source) fill() error {
	n := min(sourceWindow, s.end-s.pos)
	if n <= 0 {
		return errTruncated
	}
	if cap(s.buf) < int(n) {
		s.buf = make([]byte, n)
	}
	s.buf = s.buf[:n]
	k, err := s.r.ReadAt(s.buf, s.pos)
	if k < int(n) && err != nil && err != io.EOF {
		return err
	}
	if k == 0 {
		return errTruncated
	}
	s.buf, s.at = s.buf[:k], 0
	s.pos += int64(k)
	return nil
}

func (s *source) byte() (byte, error) {
	if s.at == len(s.buf) {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	c := s.buf[s.at]
	s.at++
	return c, nil
}

// take gives the next n bytes, valid until the next call.
func (s *source) take(n uint64) ([]byte, error) {
	if int64(n) < 0 || int64(n) > s.left() {
		return nil, errTruncated
	}
	if have := len(s.buf) - s.at; uint64(have) >= n {
		b := s.buf[s.at : s.at+int(n)]
		s.at += int(n)
		return b, nil
	}
	out := make([]byte, n)
	k := copy(out, s.buf[s.at:])
	s.at = len(s.buf)
	m, err := s.r.ReadAt(out[k:], s.pos)
	if m < len(out)-k {
		if err == nil || err == io.EOF {
			err = errTruncated
		}
		return nil, err
	}
	s.pos += int64(m)
	s.buf, s.at = s.buf[:0], 0
	return out, nil
}

// maxLine bounds the text arguments of protocol 0.
const maxLine = 1 << 20

// line gives the bytes before the next newline.
func (s *source) line() ([]byte, error) {
	var out []byte
	for {
		if s.at == len(s.buf) {
			if err := s.fill(); err != nil {
				return nil, err
			}
		}
		rest := s.buf[s.at:]
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			s.at += i + 1
			return append(out, rest[:i]...), nil
		}
		out = append(out, rest...)
		s.at = len(s.buf)
		if len(out) > maxLine {
			return nil, errors.New("pickle holds a line of text without an end")
		}
	}
}

// little reads an n-byte little-endian unsigned integer.
func (s *source) little(n uint64) (uint64, error) {
	b, err := s.take(n)
	if err != nil {
		return 0, err
	}
	v := uint64(0)
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	return v, nil
}
