package npz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
)

// magic opens an .npy file (NumPy's lib/format.py).
const magic = "\x93NUMPY"

// maxHeader bounds the header; NumPy itself refuses more than 10,000 bytes of
// untrusted files.
const maxHeader = 1 << 16

// descrs are NumPy's names of element types, little-endian where it matters.
var descrs = []struct {
	descr string
	dtype tensor.DType
}{
	{"<f4", tensor.F32},
	{"<f8", tensor.F64},
	{"<f2", tensor.F16},
	{"<i8", tensor.I64},
	{"<i4", tensor.I32},
	{"<i2", tensor.I16},
	{"|i1", tensor.I8},
	{"<u8", tensor.U64},
	{"<u4", tensor.U32},
	{"<u2", tensor.U16},
	{"|u1", tensor.U8},
	{"|b1", tensor.Bool},
	{"<c8", tensor.C64},
	{"<c16", tensor.C128},
}

func descrOf(d tensor.DType) string {
	for _, x := range descrs {
		if x.dtype == d {
			return x.descr
		}
	}
	return ""
}

func dtypeOf(descr string) (tensor.DType, error) {
	for _, x := range descrs {
		// NumPy writes one-byte types with any mark of byte order.
		if x.descr == descr || x.descr[0] == '|' && len(descr) == 3 && x.descr[1:] == descr[1:] && strings.ContainsRune("<>=|", rune(descr[0])) {
			return x.dtype, nil
		}
	}
	switch {
	case strings.HasPrefix(descr, ">"):
		return 0, fmt.Errorf("element type %q is big-endian, which is not supported: convert with astype(%q)", descr, "<"+descr[1:])
	case strings.Contains(descr, "O"):
		return 0, errors.New("elements are pickled Python objects, which are not read")
	}
	return 0, fmt.Errorf("element type %.40q is not supported", descr)
}

// Detect tells by the first bytes whether a file can be an .npy file. An .npz
// file is a zip and begins as one.
func Detect(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }

// readHeader reads the header of an array at position off of a file; size is
// where the array ends.
func readHeader(r io.ReaderAt, off, size int64) (weights.Tensor, error) {
	var t weights.Tensor
	var pre [12]byte
	if size-off < 10 {
		return t, errors.New("file is too short for an .npy header")
	}
	if err := weights.ReadFull(r, pre[:min(12, size-off)], off); err != nil {
		return t, err
	}
	if string(pre[:6]) != magic {
		return t, errors.New("file is not an .npy file")
	}
	length, at := int64(binary.LittleEndian.Uint16(pre[8:])), off+10
	if pre[6] >= 2 {
		length, at = int64(binary.LittleEndian.Uint32(pre[8:])), off+12
	}
	switch {
	case pre[6] < 1 || pre[6] > 3:
		return t, fmt.Errorf("version %d of .npy is unknown", pre[6])
	case length > maxHeader:
		return t, fmt.Errorf("the .npy header has %d bytes, more than the %d that are accepted", length, maxHeader)
	case length > size-at:
		return t, errors.New("file ends inside the .npy header: it is truncated")
	}
	head := make([]byte, length)
	if err := weights.ReadFull(r, head, at); err != nil {
		return t, err
	}
	if err := parseHeader(&t, string(head)); err != nil {
		return t, err
	}
	t.Offset = at + length
	if have := size - t.Offset; t.Bytes() > have {
		return t, fmt.Errorf("%s%v takes %d bytes, but only %d are there: the file is truncated", t.DType, t.Shape, t.Bytes(), have)
	}
	return t, nil
}

// parseHeader reads the Python literal {'descr': '<f4', 'fortran_order': False,
// 'shape': (2, 3), }.
func parseHeader(t *weights.Tensor, s string) error {
	p := literal{s}
	seen := map[string]bool{}
	fortran := false
	if !p.eat('{') {
		return errHeader
	}
	for !p.eat('}') {
		key, ok := p.str()
		if !ok || seen[key] || !p.eat(':') {
			return errHeader
		}
		seen[key] = true
		var err error
		switch key {
		case "descr":
			err = p.descr(t)
		case "fortran_order":
			fortran, err = p.bool()
		case "shape":
			t.Shape, err = p.shape()
		default:
			return fmt.Errorf("the .npy header has the unknown entry %.40q", key)
		}
		if err != nil {
			return err
		}
		if !p.eat(',') && !p.peek('}') {
			return errHeader
		}
	}
	if p.skip(); p.s != "" || !seen["descr"] || !seen["fortran_order"] || !seen["shape"] {
		return errHeader
	}
	if _, err := weights.Extent(t.Shape, nil); err != nil {
		return err
	}
	if fortran && len(t.Shape) > 1 {
		t.Stride = make([]int, len(t.Shape))
		n := 1
		for k, d := range t.Shape {
			t.Stride[k] = n
			n *= max(d, 1)
		}
	}
	return nil
}

var errHeader = errors.New("the .npy header is broken")

// literal reads the little of Python's syntax that headers use.
type literal struct{ s string }

func (p *literal) skip() { p.s = strings.TrimLeft(p.s, " \t\n\r\x00") }

func (p *literal) peek(c byte) bool {
	p.skip()
	return p.s != "" && p.s[0] == c
}

func (p *literal) eat(c byte) bool {
	ok := p.peek(c)
	if ok {
		p.s = p.s[1:]
	}
	return ok
}

func (p *literal) str() (string, bool) {
	p.skip()
	if p.s == "" || p.s[0] != '\'' && p.s[0] != '"' {
		return "", false
	}
	end := strings.IndexByte(p.s[1:], p.s[0])
	if end < 0 {
		return "", false
	}
	out := p.s[1 : 1+end]
	p.s = p.s[2+end:]
	return out, !strings.Contains(out, "\\")
}

func (p *literal) descr(t *weights.Tensor) error {
	if p.peek('[') {
		return errors.New("elements are records of several fields, which are not supported")
	}
	d, ok := p.str()
	if !ok {
		return errHeader
	}
	var err error
	t.DType, err = dtypeOf(d)
	return err
}

func (p *literal) bool() (bool, error) {
	p.skip()
	for _, b := range []bool{false, true} {
		word := map[bool]string{false: "False", true: "True"}[b]
		if rest, ok := strings.CutPrefix(p.s, word); ok {
			p.s = rest
			return b, nil
		}
	}
	return false, errHeader
}

// maxRank is NumPy's limit of dimensions.
const maxRank = 64

func (p *literal) shape() ([]int, error) {
	shape := []int{}
	if !p.eat('(') {
		return nil, errHeader
	}
	for !p.eat(')') {
		p.skip()
		n := 0
		for n < len(p.s) && p.s[n] >= '0' && p.s[n] <= '9' {
			n++
		}
		d, err := strconv.Atoi(p.s[:n])
		if err != nil || len(shape) == maxRank {
			return nil, errHeader
		}
		p.s = strings.TrimPrefix(p.s[n:], "L") // Python 2
		shape = append(shape, d)
		if !p.eat(',') && !p.peek(')') {
			return nil, errHeader
		}
	}
	return shape, nil
}

// header is the header of a row-major array as NumPy writes it: padded so that
// the data begin at a multiple of 64 bytes.
func header(t weights.Tensor) ([]byte, error) {
	descr := descrOf(t.DType)
	if descr == "" {
		return nil, fmt.Errorf("array %q: NumPy has no element type %s; cast it first", t.Name, t.DType)
	}
	if _, err := weights.Extent(t.Shape, nil); err != nil {
		return nil, fmt.Errorf("array %q: %w", t.Name, err)
	}
	shape := ""
	for i, d := range t.Shape {
		if i > 0 {
			shape += ", "
		}
		shape += strconv.Itoa(d)
	}
	if len(t.Shape) == 1 {
		shape += ","
	}
	s := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, shape)
	for (10+len(s)+1)%64 != 0 {
		s += " "
	}
	b := append([]byte(magic), 1, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s)+1))
	return append(append(b, s...), '\n'), nil
}
