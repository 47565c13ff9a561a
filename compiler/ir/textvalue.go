package ir

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// value reads an attribute's value. set is called once, or again later when a
// blob's bytes are known.
func (p *parser) value(set func(any)) {
	switch c := p.peek(); {
	case c == '"':
		set(p.str())
		return
	case c == '[':
		p.accept("[")
		v := []int64{}
		p.list("]", func() { v = append(v, p.int64()) })
		set(v)
		return
	case c == '-' || c == '+' || isDigit(c):
		set(p.numberValue())
		return
	}
	at := p.at
	w := p.word()
	if p.listValue(w, set) {
		return
	}
	switch w {
	case "onnx", "core":
		p.at = at
		set(p.graph())
	case "type":
		set(p.typ())
	case "ref":
		set(Ref{Name: p.str(), Kind: int32(p.int64())})
	case "raw":
		set(Raw{Bytes: p.hexBytes()})
	case "nan":
		p.at = at
		set(p.float32())
	default:
		p.at = at
		p.tensor(func(t *tensor.Tensor) { set(t) })
	}
}

func (p *parser) listValue(w string, set func(any)) bool {
	switch w {
	case "floats":
		v := []float32{}
		p.expect("[")
		p.list("]", func() { v = append(v, p.float32()) })
		set(v)
	case "strings":
		v := []string{}
		p.expect("[")
		p.list("]", func() { v = append(v, p.str()) })
		set(v)
	case "graphs":
		v := []*Graph{}
		p.expect("[")
		p.list("]", func() { v = append(v, p.graph()) })
		set(v)
	case "types":
		v := []Type{}
		p.expect("[")
		p.list("]", func() { v = append(v, p.typ()) })
		set(v)
	case "tensors":
		v := []*tensor.Tensor{}
		p.expect("[")
		p.list("]", func() {
			i := len(v)
			v = append(v, nil)
			p.tensor(func(t *tensor.Tensor) { v[i] = t; set(v) })
		})
		set(v)
	default:
		return false
	}
	return true
}

func (p *parser) int64() int64 {
	s := p.number()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		p.fail("%q is not an integer", s)
	}
	return n
}

func (p *parser) float32() float32 {
	s := p.number()
	f, ok := parseFloat32(s)
	if !ok {
		p.fail("%q is not a number", s)
	}
	return f
}

func parseFloat32(s string) (float32, bool) {
	if bits, ok := strings.CutPrefix(s, "nan:"); ok {
		n, err := strconv.ParseUint(bits, 16, 32)
		f := math.Float32frombits(uint32(n))
		return f, err == nil && f != f
	}
	f, err := strconv.ParseFloat(s, 32)
	return float32(f), err == nil && f == f
}

func (p *parser) numberValue() any {
	s := p.number()
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	f, ok := parseFloat32(s)
	if !ok {
		p.fail("%q is not a number", s)
	}
	return f
}

func (p *parser) dtype() tensor.DType {
	w := p.word()
	if w == tensor.Invalid.String() {
		return tensor.Invalid
	}
	d, ok := tensor.ParseDType(w)
	if !ok {
		p.fail("%q is not an element type", w)
	}
	return d
}

// tensor reads a tensor; one whose bytes stand behind the graph is set again
// when they are read.
func (p *parser) tensor(set func(*tensor.Tensor)) {
	d := p.dtype()
	var shape []int
	p.expect("[")
	if !p.accept("]") {
		for {
			shape = append(shape, p.digits())
			if p.here() != 'x' {
				break
			}
			p.at++
		}
		p.expect("]")
	}
	switch p.peek() {
	case '#':
		p.at++
		// The bytes are not known yet: a tensor without them stands for the type.
		n := p.digits()
		u := blobUse{&tensor.Tensor{DType: d, Shape: shape}, set}
		p.blobs[n] = append(p.blobs[n], u)
		set(u.t)
	case 'x':
		set(p.checked(tensor.FromBytes(d, shape, p.hexBytes())))
	default:
		p.expect("{")
		var parts []string
		p.list("}", func() {
			if d == tensor.String {
				parts = append(parts, p.str())
			} else {
				parts = append(parts, p.number())
			}
		})
		set(p.checked(elements(d, shape, parts)))
	}
}

func (p *parser) checked(t *tensor.Tensor, err error) *tensor.Tensor {
	if err != nil {
		p.fail("%v", err)
	}
	return t
}

// blobSection reads the bytes of the large tensors. Uses of one blob with the
// same type and shape were one tensor, and are again.
func (p *parser) blobSection() {
	for p.accept("#") {
		n := p.digits()
		b := p.base64Bytes()
		var last *tensor.Tensor
		for _, u := range p.blobs[n] {
			t := p.checked(tensor.FromBytes(u.t.DType, u.t.Shape, b))
			if last != nil && tensor.Equal(last, t) {
				t = last
			}
			u.set(t)
			last = t
		}
		delete(p.blobs, n)
	}
	if p.peek() != 0 {
		p.fail("unexpected %s behind the graph", p.found())
	}
	for n := range p.blobs {
		p.fail("the bytes of #%d are missing", n)
	}
}

// elements makes a tensor of the texts of its elements.
func elements(d tensor.DType, shape []int, parts []string) (*tensor.Tensor, error) {
	n, err := tensor.Count(shape)
	if err != nil {
		return nil, err
	}
	if n != len(parts) {
		return nil, fmt.Errorf("%d elements for shape %s", len(parts), tensor.ShapeString(shape))
	}
	if d == tensor.String {
		return tensor.FromStrings(shape, parts)
	}
	if !d.Valid() || d.Kind() == tensor.KindComplex {
		return nil, fmt.Errorf("elements of type %s stand as bytes", d)
	}
	t := tensor.New(d, shape...)
	for i, s := range parts {
		if err := setElement(t, i, s); err != nil {
			return nil, fmt.Errorf("%q is not a value of %s", s, d)
		}
	}
	return t, nil
}

func setElement(t *tensor.Tensor, i int, s string) error {
	switch t.DType.Kind() {
	case tensor.KindFloat:
		f, err := strconv.ParseFloat(s, floatBits(t.DType))
		t.SetFloat(i, f)
		return err
	case tensor.KindUint:
		u, err := strconv.ParseUint(s, 10, t.DType.Bits())
		t.SetInt(i, int64(u))
		return err
	case tensor.KindBool:
		if s != "0" && s != "1" {
			return strconv.ErrSyntax
		}
	}
	n, err := strconv.ParseInt(s, 10, max(t.DType.Bits(), 2))
	t.SetInt(i, n)
	return err
}
