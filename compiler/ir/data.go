package ir

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Data is what a value holds while a graph runs: a tensor, a sequence, an
// optional or a map. Form says which; like tensors, Data is read-only once it
// is shared.
type Data struct {
	Form   Form
	Tensor *tensor.Tensor // FormTensor
	Items  []*Data        // FormSequence: the elements; FormMap: the values
	Some   *Data          // FormOptional: the content, nil for none
	Keys   *tensor.Tensor // FormMap: a vector as long as Items
	// Elem is the type of the elements of a sequence or of the content of an
	// optional, where known: an empty one carries it in no other way.
	Elem *Type
}

// TensorData wraps a tensor.
func TensorData(t *tensor.Tensor) *Data { return &Data{Form: FormTensor, Tensor: t} }

// SequenceData makes a sequence; elem may be nil.
func SequenceData(elem *Type, items ...*Data) *Data {
	return &Data{Form: FormSequence, Items: items, Elem: elem}
}

// OptionalData makes an optional; a nil content means none.
func OptionalData(elem *Type, some *Data) *Data {
	return &Data{Form: FormOptional, Some: some, Elem: elem}
}

// Unwrap gives the content of an optional (nil for none), and anything else
// as it is.
func (d *Data) Unwrap() *Data {
	for d != nil && d.Form == FormOptional {
		d = d.Some
	}
	return d
}

// Type is the type of the data as far as the data tells.
func (d *Data) Type() Type {
	if d == nil {
		return Type{}
	}
	switch d.Form {
	case FormTensor:
		if d.Tensor == nil {
			return Type{Form: FormTensor}
		}
		return TensorType(d.Tensor.DType, d.Tensor.Shape...)
	case FormOptional:
		e := d.Elem
		if e == nil && d.Some != nil {
			t := d.Some.Type()
			e = &t
		}
		return Type{Form: FormOptional, Elem: e}
	}
	t := Type{Form: d.Form, Elem: d.Elem}
	if d.Keys != nil {
		t.Key = d.Keys.DType
	}
	if t.Elem == nil && len(d.Items) > 0 {
		e := d.Items[0].Type()
		t.Elem = &e
	}
	return t
}

func (d *Data) String() string {
	if d == nil {
		return "none"
	}
	switch d.Form {
	case FormTensor:
		return d.Tensor.String()
	case FormOptional:
		return "optional(" + d.Some.String() + ")"
	}
	return fmt.Sprintf("%s of %d", d.Type(), len(d.Items))
}
