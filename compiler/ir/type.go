package ir

import (
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Form is the outer shape of a type: most values are tensors.
type Form uint8

// The forms of ONNX TypeProto.
const (
	FormNone Form = iota // no type given
	FormTensor
	FormSparse
	FormSequence
	FormOptional
	FormMap
	FormOpaque
)

// Dim is one dimension of a type. N is its size or -1; Param names an unknown
// size ("batch"); both empty means unknown without a name. Denotation is ONNX's
// optional meaning of the axis.
type Dim struct {
	N          int
	Param      string
	Denotation string
}

// Known is the dimension of a fixed size.
func Known(n int) Dim { return Dim{N: n} }

func (d Dim) String() string {
	switch {
	case d.N >= 0:
		return strconv.Itoa(d.N)
	case d.Param != "":
		return d.Param
	}
	return "?"
}

// Type is the type of a value.
type Type struct {
	Form       Form
	DType      tensor.DType // of tensors
	HasRank    bool         // false: any rank
	Shape      []Dim
	Elem       *Type        // of sequence, optional, map values
	Key        tensor.DType // of maps
	Denotation string
	Opaque     [2]string // domain, name of an opaque type
}

// TensorType is the type of a tensor of a static shape.
func TensorType(d tensor.DType, shape ...int) Type {
	t := Type{Form: FormTensor, DType: d, HasRank: true, Shape: make([]Dim, len(shape))}
	for i, n := range shape {
		t.Shape[i] = Known(n)
	}
	return t
}

// Static gives the sizes if all are known.
func (t Type) Static() ([]int, bool) {
	if t.Form != FormTensor || !t.HasRank {
		return nil, false
	}
	s := make([]int, len(t.Shape))
	for i, d := range t.Shape {
		if d.N < 0 {
			return nil, false
		}
		s[i] = d.N
	}
	return s, true
}

// String prints f32[1x3xH], seq(f32[?]), optional(…); an unknown rank is [...].
func (t Type) String() string {
	switch t.Form {
	case FormNone:
		return "?"
	case FormSequence:
		return "seq(" + t.elem() + ")"
	case FormOptional:
		return "optional(" + t.elem() + ")"
	case FormMap:
		return "map(" + t.Key.String() + "," + t.elem() + ")"
	case FormOpaque:
		return "opaque(" + t.Opaque[0] + "," + t.Opaque[1] + ")"
	}
	var b strings.Builder
	if t.Form == FormSparse {
		b.WriteString("sparse:")
	}
	b.WriteString(t.DType.String())
	if !t.HasRank {
		b.WriteString("[...]")
		return b.String()
	}
	b.WriteByte('[')
	for i, d := range t.Shape {
		if i > 0 {
			b.WriteByte('x')
		}
		b.WriteString(d.String())
	}
	b.WriteByte(']')
	return b.String()
}

func (t Type) elem() string {
	if t.Elem == nil {
		return "?"
	}
	return t.Elem.String()
}
