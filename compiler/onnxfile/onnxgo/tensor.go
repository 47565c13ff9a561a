package onnxgo

import (
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	gtensor "gorgonia.org/tensor"
)

// fromGorgonia copies a dense tensor. Gorgonia gives the data of a tensor of
// one element without a slice.
func fromGorgonia(g gtensor.Tensor) (*tensor.Tensor, error) {
	d, ok := g.(*gtensor.Dense)
	if !ok {
		return nil, fault.New(fault.Unsupported, "a tensor of the Go type %T", g)
	}
	if d.RequiresIterator() {
		d = d.Materialize().(*gtensor.Dense)
	}
	shape := []int(d.Shape())
	n, err := tensor.Count(shape)
	if err != nil {
		return nil, fault.New(fault.BadModel, "%w", err)
	}
	switch v := d.Data().(type) {
	case []float32:
		return copied(v, n, shape)
	case []float64:
		return copied(v, n, shape)
	case []int8:
		return copied(v, n, shape)
	case []int16:
		return copied(v, n, shape)
	case []int32:
		return copied(v, n, shape)
	case []int64:
		return copied(v, n, shape)
	case []uint8:
		return copied(v, n, shape)
	case []uint16:
		return copied(v, n, shape)
	case []uint32:
		return copied(v, n, shape)
	case []uint64:
		return copied(v, n, shape)
	case []bool:
		return copied(v, n, shape)
	case []string:
		return tensor.FromStrings(shape, append([]string{}, v...))
	case float32:
		return copied([]float32{v}, n, shape)
	case float64:
		return copied([]float64{v}, n, shape)
	case int8:
		return copied([]int8{v}, n, shape)
	case int16:
		return copied([]int16{v}, n, shape)
	case int32:
		return copied([]int32{v}, n, shape)
	case int64:
		return copied([]int64{v}, n, shape)
	case uint8:
		return copied([]uint8{v}, n, shape)
	case uint16:
		return copied([]uint16{v}, n, shape)
	case uint32:
		return copied([]uint32{v}, n, shape)
	case uint64:
		return copied([]uint64{v}, n, shape)
	case bool:
		return copied([]bool{v}, n, shape)
	case string:
		return tensor.FromStrings(shape, []string{v})
	}
	return nil, fault.New(fault.Unsupported, "onnx-go gives a tensor of %v", d.Dtype())
}

func copied[T tensor.Native](v []T, n int, shape []int) (*tensor.Tensor, error) {
	if len(v) != n {
		return nil, fault.New(fault.BadModel, "onnx-go gives %d values for the shape %s", len(v), tensor.ShapeString(shape))
	}
	return tensor.Of(v, shape...), nil
}

// toGorgonia copies into a dense tensor of the types that gorgonia has.
func toGorgonia(t *tensor.Tensor) (gtensor.Tensor, error) {
	var back any
	switch t.DType {
	case tensor.F32:
		back = backing[float32](t)
	case tensor.F64:
		back = backing[float64](t)
	case tensor.I8:
		back = backing[int8](t)
	case tensor.I16:
		back = backing[int16](t)
	case tensor.I32:
		back = backing[int32](t)
	case tensor.I64:
		back = backing[int64](t)
	case tensor.U8:
		back = backing[uint8](t)
	case tensor.U16:
		back = backing[uint16](t)
	case tensor.U32:
		back = backing[uint32](t)
	case tensor.U64:
		back = backing[uint64](t)
	case tensor.Bool:
		back = backing[bool](t)
	case tensor.String:
		back = append([]string{}, t.Strings()...)
	default:
		return nil, fault.New(fault.Unsupported, "gorgonia has no element type for %s", t.DType.ONNX())
	}
	if len(t.Shape) == 0 {
		return gtensor.New(gtensor.WithShape(), gtensor.WithBacking(back)), nil
	}
	return gtensor.New(gtensor.WithShape(t.Shape...), gtensor.WithBacking(back)), nil
}

func backing[T tensor.Native](t *tensor.Tensor) []T { return append([]T{}, tensor.As[T](t)...) }

// dtypes are the element types of gorgonia that ONNX has too.
var dtypes = map[gtensor.Dtype]tensor.DType{
	gtensor.Float32: tensor.F32, gtensor.Float64: tensor.F64, gtensor.Bool: tensor.Bool, gtensor.String: tensor.String,
	gtensor.Int8: tensor.I8, gtensor.Int16: tensor.I16, gtensor.Int32: tensor.I32, gtensor.Int64: tensor.I64,
	gtensor.Uint8: tensor.U8, gtensor.Uint16: tensor.U16, gtensor.Uint32: tensor.U32, gtensor.Uint64: tensor.U64,
}
