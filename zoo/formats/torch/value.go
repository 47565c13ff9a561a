package torch

import (
	"io"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
)

// A value of a pickle is one of these Go types:
//
//	nil          None
//	bool         bool
//	int64        int
//	*big.Int     int that int64 cannot hold
//	float64      float
//	complex128   complex
//	string       str (raw bytes where Python's text is not UTF-8)
//	Bytes        bytes
//	Size         torch.Size
//	*List        list
//	*Tuple       tuple
//	*Dict        dict and collections.OrderedDict
//	*Set         set and frozenset
//	*Class       a class, function or dtype, by name only
//	*Object      an instance of any other class
//	*Tensor      torch.Tensor and torch.nn.Parameter
//	*Storage     a storage that is referred to without a tensor
//
// Pointers keep identity: what is shared in the pickle is the same pointer, and
// is shared again when written.
type Value = any

// Bytes is Python's bytes. It is a string in Go so that it can be a key.
type Bytes string

// Size is a torch.Size.
type Size []int

// List is a Python list.
type List struct{ Items []Value }

// Tuple is a Python tuple.
type Tuple struct{ Items []Value }

// Set is a Python set or frozenset, in the order of the file.
type Set struct {
	Frozen bool
	Items  []Value
}

// NewList makes a list.
func NewList(items ...Value) *List { return &List{items} }

// NewTuple makes a tuple.
func NewTuple(items ...Value) *Tuple { return &Tuple{items} }

// Class names a global: a class, a function, an enum or a dtype. It is never
// looked up or called.
type Class struct{ Module, Name string }

// String is the dotted name.
func (c *Class) String() string { return c.Module + "." + c.Name }

// Make tells how an Object comes into being when Python reads it.
type Make uint8

// The ways to make an object.
const (
	// Reduce calls Class(*Args): opcode REDUCE.
	Reduce Make = iota
	// NewObj calls Class.__new__(Class, *Args): opcode NEWOBJ.
	NewObj
	// NewObjEx calls Class.__new__(Class, *Args, **Kwargs): opcode NEWOBJ_EX.
	NewObjEx
)

// Object is an instance of a class that the reader does not model. It holds all
// that the pickle says, so that it is written again with the same meaning.
type Object struct {
	Class  *Class
	Make   Make
	Args   *Tuple
	Kwargs *Dict // only NewObjEx
	// State is what BUILD passes to __setstate__ or puts into __dict__; most
	// often a *Dict. It counts only if HasState is set, since None is a state.
	State    Value
	HasState bool
	// Items are appended (list subclasses), Pairs set (dict subclasses).
	Items []Value
	Pairs []Pair
}

// NewObject makes an instance that is pickled as Python pickles plain objects
// in protocol 2: NEWOBJ without arguments, and a dict as state.
func NewObject(module, name string, state *Dict) *Object {
	o := &Object{Class: &Class{module, name}, Make: NewObj, Args: NewTuple()}
	if state != nil {
		o.State, o.HasState = state, true
	}
	return o
}

// Attr is an attribute of the instance.
func (o *Object) Attr(name string) (Value, bool) {
	d, ok := o.State.(*Dict)
	if !ok {
		// (dict, slots) is how Python pickles classes with __slots__.
		if t, isTuple := o.State.(*Tuple); isTuple && len(t.Items) == 2 {
			for _, part := range t.Items {
				if d, ok := part.(*Dict); ok {
					if v, ok := d.Get(name); ok {
						return v, true
					}
				}
			}
		}
		return nil, false
	}
	return d.Get(name)
}

// Is reports whether the object's class has this dotted name.
func (o *Object) Is(module, name string) bool {
	return o.Class.Module == module && o.Class.Name == name
}

// Storage is a block of elements that tensors are views of.
type Storage struct {
	// Key names the storage inside its file.
	Key string
	// DType is the element type; tensor.U8 for untyped storages.
	DType tensor.DType
	// Untyped tells that the file says UntypedStorage: Elements counts bytes.
	Untyped bool
	// Kind is the class name of a storage whose elements this package does not
	// compute with (QInt8Storage, …); else empty.
	Kind string
	// Device is where it lived: "cpu", "cuda:0", …
	Device   string
	Elements int64
	// File and Offset are where its bytes lie; Offset is -1 when the bytes are
	// not in a file (a storage made for writing).
	File   string
	Offset int64
	// Sum is the CRC-32 of its bytes as the file states it, if HasSum is set:
	// torch.load never looks at it, so damage goes unnoticed there.
	Sum    uint32
	HasSum bool
	// Data reads the bytes, position 0 being the first. A storage that was
	// read has it; for writing it may be nil if the caller fills the slots.
	Data io.ReaderAt
}

// NewStorage makes a storage for writing. data may be nil.
func NewStorage(d tensor.DType, elements int64, data io.ReaderAt) *Storage {
	return &Storage{DType: d, Device: "cpu", Elements: elements, Offset: -1, Data: data}
}

// Bytes is the size of the storage.
func (s *Storage) Bytes() int64 { return s.Elements * int64(s.DType.Size()) }

// Tensor is a view of a storage. Shape and Stride count elements.
type Tensor struct {
	DType         tensor.DType
	Shape, Stride []int
	// StorageOffset is the place of the first element, in elements.
	StorageOffset int64
	Storage       *Storage
	RequiresGrad  bool
	// Hooks is the backward_hooks item; nil is written as an empty OrderedDict.
	Hooks Value
	// Metadata is the optional last item of _rebuild_tensor_v2 and _v3.
	Metadata    Value
	HasMetadata bool
	// Param is set for torch.nn.Parameter.
	Param *Param
	// Wrap is set for tensors with a Python type or attributes of their own.
	Wrap *Wrap
}

// Param is what torch.nn.Parameter adds to a tensor.
type Param struct {
	RequiresGrad bool
	Hooks        Value
	State        Value
	HasState     bool
}

// Wrap is what torch._tensor._rebuild_from_type_v2 adds to a tensor.
type Wrap struct {
	Type  *Class
	State Value
}

// NewTensor makes a row-major tensor with a storage of its own.
func NewTensor(d tensor.DType, shape []int, data io.ReaderAt) *Tensor {
	n := int64(1)
	for _, x := range shape {
		n *= int64(x)
	}
	return ViewOf(NewStorage(d, n, data), shape, 0)
}

// ViewOf makes a row-major tensor at an offset of a storage, in elements.
func ViewOf(s *Storage, shape []int, offset int64) *Tensor {
	return &Tensor{
		DType: s.DType, Shape: shape, Stride: weights.RowMajor(shape),
		StorageOffset: offset, Storage: s,
	}
}

// Ref is the tensor as a range of its file.
func (t *Tensor) Ref(name string) weights.Tensor {
	w := weights.Tensor{
		Name: name, DType: t.DType, Shape: t.Shape, Stride: t.Stride,
		File:   t.Storage.File,
		Offset: t.Storage.Offset + t.StorageOffset*int64(t.DType.Size()),
	}
	if w.Contiguous() {
		w.Stride = nil
	}
	return w
}

// Reader reads the packed row-major bytes of the tensor.
func (t *Tensor) Reader() io.ReaderAt {
	w := t.Ref("")
	w.Offset = t.StorageOffset * int64(t.DType.Size())
	return w.Reader(t.Storage.Data)
}

// Load reads the tensor into memory.
func (t *Tensor) Load() (*tensor.Tensor, error) {
	w := t.Ref("")
	w.Offset = t.StorageOffset * int64(t.DType.Size())
	return w.Load(t.Storage.Data)
}
