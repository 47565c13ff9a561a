package ir

import "github.com/lathe-ml/lathe/compiler/tensor"

// Attr is a named attribute. Val is one of: int64, float32, string (ONNX's
// bytes), *tensor.Tensor, *Graph, Type, []int64, []float32, []string,
// []*tensor.Tensor, []*Graph, []Type, Ref, Raw.
type Attr struct {
	Name string
	Val  any
	Doc  string
	// Extra holds wire fields that lathe does not interpret.
	Extra []byte
}

// Ref is an attribute of a function body that refers to an attribute of the
// function itself; Kind is ONNX's AttributeProto.AttributeType number.
type Ref struct {
	Name string
	Kind int32
}

// Raw is an attribute that lathe keeps but does not interpret (sparse tensors):
// its wire bytes.
type Raw struct{ Bytes []byte }

// Attr finds an attribute by name.
func (n *Node) Attr(name string) (any, bool) {
	for i := range n.Attrs {
		if n.Attrs[i].Name == name {
			return n.Attrs[i].Val, true
		}
	}
	return nil, false
}

// SetAttr replaces or appends an attribute.
func (n *Node) SetAttr(name string, val any) {
	for i := range n.Attrs {
		if n.Attrs[i].Name == name {
			n.Attrs[i].Val = val
			return
		}
	}
	n.Attrs = append(n.Attrs, Attr{Name: name, Val: val})
}

func attrAs[T any](n *Node, name string, def T) T {
	if v, ok := n.Attr(name); ok {
		if t, ok := v.(T); ok {
			return t
		}
	}
	return def
}

// Int reads an int attribute or gives def.
func (n *Node) Int(name string, def int) int { return int(attrAs(n, name, int64(def))) }

// Float reads a float attribute or gives def.
func (n *Node) Float(name string, def float64) float64 {
	if v, ok := n.Attr(name); ok {
		if f, ok := v.(float32); ok {
			return float64(f)
		}
	}
	return def
}

// Str reads a string attribute or gives def.
func (n *Node) Str(name, def string) string { return attrAs(n, name, def) }

// Ints reads an ints attribute; nil if absent.
func (n *Node) Ints(name string) []int {
	v := attrAs[[]int64](n, name, nil)
	if v == nil {
		return nil
	}
	out := make([]int, len(v))
	for i, x := range v {
		out[i] = int(x)
	}
	return out
}

// TensorAttr reads a tensor attribute; nil if absent.
func (n *Node) TensorAttr(name string) *tensor.Tensor {
	return attrAs[*tensor.Tensor](n, name, nil)
}

// GraphAttr reads a graph attribute; nil if absent.
func (n *Node) GraphAttr(name string) *Graph { return attrAs[*Graph](n, name, nil) }

// Int64s converts for attribute values.
func Int64s(v []int) []int64 {
	out := make([]int64, len(v))
	for i, x := range v {
		out[i] = int64(x)
	}
	return out
}
