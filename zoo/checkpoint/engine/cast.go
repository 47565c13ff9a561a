package engine

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// cast converts packed elements.
func cast(dst []byte, to tensor.DType, src []byte, from tensor.DType) error {
	le := binary.LittleEndian
	switch {
	case from == tensor.F32 && to == tensor.BF16:
		for i := 0; i+4 <= len(src); i += 4 {
			u := le.Uint32(src[i:])
			if u&0x7fffffff > 0x7f800000 {
				le.PutUint16(dst[i/2:], 0x7fc0)
				continue
			}
			le.PutUint16(dst[i/2:], uint16((u+0x7fff+u>>16&1)>>16))
		}
	case from == tensor.BF16 && to == tensor.F32:
		for i := 0; i+2 <= len(src); i += 2 {
			le.PutUint32(dst[2*i:], uint32(le.Uint16(src[i:]))<<16)
		}
	case from == tensor.F16 && to == tensor.F32:
		for i := 0; i+2 <= len(src); i += 2 {
			le.PutUint32(dst[2*i:], math.Float32bits(tensor.F16ToFloat32(le.Uint16(src[i:]))))
		}
	default:
		return castAny(dst, to, src, from)
	}
	return nil
}

func castAny(dst []byte, to tensor.DType, src []byte, from tensor.DType) error {
	if from.Size() == 0 || to.Size() == 0 || !from.IsNumeric() && from != tensor.Bool || !to.IsNumeric() && to != tensor.Bool {
		return fmt.Errorf("elements of type %s cannot be cast to %s", from, to)
	}
	// The converter wants aligned memory of its own.
	t := tensor.New(from, len(src)/from.Size())
	copy(t.Bytes(), src)
	copy(dst, tensor.Convert(t, to).Bytes())
	return nil
}

// mean adds up copies as torch does: from zero, left to right, rounding to the
// element type after each step, then divides.
type mean struct {
	dtype tensor.DType
	acc   *tensor.Tensor
}

func newMean(d tensor.DType, first []byte) (*mean, error) {
	if !d.IsFloat() || d.Size() == 0 {
		return nil, fmt.Errorf("elements of type %s have no mean", d)
	}
	m := &mean{d, tensor.New(d, len(first)/d.Size())}
	m.add(first)
	return m, nil
}

func (m *mean) add(b []byte) {
	t := tensor.New(m.dtype, m.acc.Len())
	copy(t.Bytes(), b)
	if m.dtype == tensor.F32 {
		acc, x := tensor.As[float32](m.acc), tensor.As[float32](t)
		for i, v := range x {
			acc[i] += v
		}
		return
	}
	for i := range m.acc.Len() {
		m.acc.SetFloat(i, m.acc.Float(i)+t.Float(i))
	}
}

func (m *mean) finish(n int, dst []byte) {
	if m.dtype == tensor.F32 {
		acc := tensor.As[float32](m.acc)
		for i := range acc {
			acc[i] /= float32(n)
		}
	} else {
		for i := range m.acc.Len() {
			m.acc.SetFloat(i, m.acc.Float(i)/float64(n))
		}
	}
	copy(dst, m.acc.Bytes())
}
