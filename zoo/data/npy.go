package data

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

const npyMagic = "\x93NUMPY"

// npyTypes maps NumPy's type codes without byte order. The ml_dtypes types have
// no code of their own: NumPy saves them as raw bytes (V1, V2).
var npyTypes = map[string]tensor.DType{
	"f4": tensor.F32, "f8": tensor.F64, "f2": tensor.F16, "b1": tensor.Bool,
	"i1": tensor.I8, "i2": tensor.I16, "i4": tensor.I32, "i8": tensor.I64,
	"u1": tensor.U8, "u2": tensor.U16, "u4": tensor.U32, "u8": tensor.U64,
	"c8": tensor.C64, "c16": tensor.C128,
}

// npyHeader is the dictionary at the head of an .npy file.
var (
	npyDescr   = regexp.MustCompile(`['"]descr['"]\s*:\s*['"]([<>|=]?)([a-zA-Z])(\d+)['"]`)
	npyFortran = regexp.MustCompile(`['"]fortran_order['"]\s*:\s*(True|False)`)
	npyShape   = regexp.MustCompile(`['"]shape['"]\s*:\s*\(([^)]*)\)`)
)

type npyHead struct {
	big     bool
	code    string // one letter
	width   int
	fortran bool
	shape   []int
}

// ReadNPY reads one array in NumPy's format, versions 1 to 3, either byte
// order, C or Fortran order. Text arrays (S, U) become string tensors.
func ReadNPY(r io.Reader) (*tensor.Tensor, error) {
	h, err := readNPYHead(r)
	if err != nil {
		return nil, err
	}
	n, err := tensor.Count(h.shape)
	if err != nil {
		return nil, err
	}
	width := h.width
	if h.code == "U" {
		width *= 4
	}
	raw, err := io.ReadAll(io.LimitReader(r, int64(n)*int64(width)))
	if err != nil {
		return nil, err
	}
	if len(raw) != n*width {
		return nil, fmt.Errorf("the array has %d bytes, shape %s needs %d", len(raw), tensor.ShapeString(h.shape), n*width)
	}
	if h.fortran && len(h.shape) > 1 {
		raw = fromFortran(raw, h.shape, width)
	}
	if h.code == "S" || h.code == "U" {
		return npyStrings(h, raw, n)
	}
	d, ok := npyTypes[h.code+strconv.Itoa(h.width)]
	if !ok {
		return nil, fmt.Errorf("arrays of NumPy type %q are not supported", h.code+strconv.Itoa(h.width))
	}
	if h.big {
		part := width
		if d.Kind() == tensor.KindComplex {
			part /= 2
		}
		for i := 0; i < len(raw); i += part {
			slices.Reverse(raw[i : i+part])
		}
	}
	return tensor.FromBytes(d, h.shape, raw)
}

func readNPYHead(r io.Reader) (h npyHead, err error) {
	var pre [8]byte
	if _, err := io.ReadFull(r, pre[:]); err != nil || string(pre[:6]) != npyMagic {
		return h, errors.New("it does not begin with NumPy's magic")
	}
	size := make([]byte, 4)
	if pre[6] == 1 {
		size = size[:2]
	}
	if pre[6] < 1 || pre[6] > 3 {
		return h, fmt.Errorf("NumPy format version %d is unknown", pre[6])
	}
	if _, err := io.ReadFull(r, size); err != nil {
		return h, errors.New("the header is cut off")
	}
	n := int(binary.LittleEndian.Uint32(append(size, 0, 0)[:4]))
	if n > 1<<20 {
		return h, fmt.Errorf("a header of %d bytes is absurd", n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return h, errors.New("the header is cut off")
	}
	d, f, s := npyDescr.FindSubmatch(text), npyFortran.FindSubmatch(text), npyShape.FindSubmatch(text)
	if d == nil || f == nil || s == nil {
		return h, fmt.Errorf("the header %q has no plain descr, fortran_order and shape", text)
	}
	h.big, h.code, h.fortran = string(d[1]) == ">", string(d[2]), string(f[1]) == "True"
	if h.width, err = strconv.Atoi(string(d[3])); err != nil || h.width > 1<<20 {
		return h, fmt.Errorf("element width %s is absurd", d[3])
	}
	h.shape = []int{}
	for part := range strings.SplitSeq(string(s[1]), ",") {
		part = strings.TrimSuffix(strings.TrimSpace(part), "L")
		if part == "" {
			continue
		}
		v, err := strconv.Atoi(part)
		if err != nil || v < 0 {
			return h, fmt.Errorf("bad dimension %q", part)
		}
		h.shape = append(h.shape, v)
	}
	return h, nil
}

// fromFortran rewrites first-index-fastest order as last-index-fastest.
func fromFortran(raw []byte, shape []int, width int) []byte {
	out := make([]byte, len(raw))
	idx := make([]int, len(shape))
	for o := 0; o < len(out); o += width {
		src, step := 0, 1
		for k, i := range idx {
			src += i * step
			step *= shape[k]
		}
		copy(out[o:o+width], raw[src*width:])
		for k := len(idx) - 1; k >= 0; k-- {
			if idx[k]++; idx[k] < shape[k] {
				break
			}
			idx[k] = 0
		}
	}
	return out
}

func npyStrings(h npyHead, raw []byte, n int) (*tensor.Tensor, error) {
	out := make([]string, n)
	for i := range out {
		if h.code == "S" {
			out[i] = string(bytes.TrimRight(raw[i*h.width:(i+1)*h.width], "\x00"))
			continue
		}
		var b []byte
		order := binary.ByteOrder(binary.LittleEndian)
		if h.big {
			order = binary.BigEndian
		}
		for k := range h.width {
			c := order.Uint32(raw[(i*h.width+k)*4:])
			b = utf8.AppendRune(b, rune(c))
		}
		out[i] = strings.TrimRight(string(b), "\x00")
	}
	return tensor.FromStrings(h.shape, out)
}

// npyCode is the type code that t is saved under. Types that NumPy does not
// have are saved as raw bytes of their width, packed ones as uint8.
func npyCode(d tensor.DType) (code string, ok bool) {
	for c, t := range npyTypes {
		if t == d {
			if d.Bits() == 8 {
				return "|" + c, true
			}
			return "<" + c, true
		}
	}
	return "", false
}

// WriteNPY writes t in NumPy's format version 1. Types that NumPy lacks
// (bfloat16, the 8-bit and smaller floats, 2- and 4-bit integers) are written
// as the float32 or int8 values that they stand for.
func WriteNPY(w io.Writer, t *tensor.Tensor) error {
	t = asNumPy(t)
	descr, raw := "", t.Bytes()
	if t.DType == tensor.String {
		descr, raw = packUnicode(t.Strings())
	} else {
		descr, _ = npyCode(t.DType)
	}
	dims := make([]string, len(t.Shape))
	for i, d := range t.Shape {
		dims[i] = strconv.Itoa(d)
	}
	shape := strings.Join(dims, ", ")
	if len(dims) == 1 {
		shape += ","
	}
	head := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, shape)
	// NumPy aligns the data to 64 bytes and ends the header with a newline.
	pad := 63 - (len(npyMagic)+4+len(head))%64
	head += strings.Repeat(" ", pad) + "\n"
	pre := binary.LittleEndian.AppendUint16([]byte(npyMagic+"\x01\x00"), uint16(len(head)))
	for _, b := range [][]byte{pre, []byte(head), raw} {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func asNumPy(t *tensor.Tensor) *tensor.Tensor {
	if _, ok := npyCode(t.DType); ok || t.DType == tensor.String {
		return t
	}
	if t.DType.IsFloat() {
		return tensor.Convert(t, tensor.F32)
	}
	if t.DType.Kind() == tensor.KindUint {
		return tensor.Convert(t, tensor.U8)
	}
	return tensor.Convert(t, tensor.I8)
}

func packUnicode(s []string) (descr string, raw []byte) {
	width := 1
	for _, x := range s {
		width = max(width, utf8.RuneCountInString(x))
	}
	raw = make([]byte, 4*width*len(s))
	for i, x := range s {
		k := 0
		for _, r := range x {
			binary.LittleEndian.PutUint32(raw[4*(i*width+k):], uint32(r))
			k++
		}
	}
	return "<U" + strconv.Itoa(width), raw
}
