package torch

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
)

// opPersID reads torch's reference to a storage:
// ('storage', class, key, location, numel[, view]).
func opPersID(m *machine) error {
	v, err := m.pop()
	if err != nil {
		return err
	}
	t, ok := v.(*Tuple)
	if !ok || len(t.Items) < 5 || len(t.Items) > 6 {
		return errors.New("a persistent id is not a storage reference")
	}
	if kind, _ := t.Items[0].(string); kind != "storage" {
		return fmt.Errorf("a persistent id of kind %.20q is refused: only storages are read", kind)
	}
	class, ok1 := t.Items[1].(*Class)
	key, ok2 := t.Items[2].(string)
	device, ok3 := t.Items[3].(string)
	numel, ok4 := t.Items[4].(int64)
	if !ok1 || !ok2 || !ok3 || !ok4 || numel < 0 || numel > math.MaxInt64/32 {
		return errors.New("a storage reference is broken")
	}
	s, err := m.storage(class, key, device, numel)
	if err != nil {
		return err
	}
	if len(t.Items) == 6 && t.Items[5] != nil {
		if s, err = m.view(s, t.Items[5]); err != nil {
			return err
		}
	}
	return m.push(s)
}

func (m *machine) storage(class *Class, key, device string, numel int64) (*Storage, error) {
	s := &Storage{Key: key, Device: device, Elements: numel, File: m.opt.File, Offset: -1}
	sc, ok := storageClassByName(class.Name)
	switch {
	case (class.Module == "torch" || class.Module == "torch.storage") && (class.Name == untypedStorage || class.Name == "_"+untypedStorage):
		s.DType, s.Untyped = tensor.U8, true
	case class.Module == "torch" && ok:
		s.DType = sc.dtype
		if !sc.plain {
			s.Kind = sc.name
		}
	default:
		return nil, fmt.Errorf("%s is not a storage class", class)
	}
	if old := m.storages[key]; old != nil {
		if old.DType != s.DType || old.Elements != s.Elements || old.Untyped != s.Untyped {
			return nil, fmt.Errorf("storage %q is described in two ways", key)
		}
		return old, nil
	}
	m.storages[key] = s
	m.order = append(m.order, s)
	return s, nil
}

// rebuildTensor reads _rebuild_tensor (storage, offset, size, stride), _v2
// (… requires_grad, hooks[, metadata]) and _v3 (… requires_grad, hooks, dtype[,
// metadata]).
func rebuildTensor(_ *machine, fn *Class, a []Value) (Value, error) {
	least, most := 6, 7
	switch fn.Name {
	case "_rebuild_tensor":
		least, most = 4, 4
	case "_rebuild_tensor_v3":
		least, most = 7, 8
	}
	if len(a) < least || len(a) > most {
		return nil, errArgs
	}
	s, ok1 := a[0].(*Storage)
	offset, ok2 := a[1].(int64)
	shape, ok3 := intsOf(a[2])
	stride, ok4 := intsOf(a[3])
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return nil, errArgs
	}
	t := &Tensor{DType: s.DType, Shape: shape, Stride: stride, StorageOffset: offset, Storage: s}
	if least >= 6 {
		rg, ok := a[4].(bool)
		if !ok {
			return nil, errArgs
		}
		t.RequiresGrad = rg
		if d, ok := a[5].(*Dict); !ok || d.Len() > 0 {
			t.Hooks = a[5]
		}
	}
	if least == 7 {
		d, ok := DTypeOf(a[6])
		if !ok {
			return nil, fmt.Errorf("element type %s is unknown", kindOf(a[6]))
		}
		if d != s.DType && !s.Untyped {
			return nil, fmt.Errorf("element type %s does not fit a storage of %s", d, s.DType)
		}
		t.DType = d
	}
	if len(a) == most && most > 4 {
		t.Metadata, t.HasMetadata = a[most-1], true
		if err := plainMetadata(t.Metadata); err != nil {
			return nil, err
		}
	}
	return t, t.check()
}

// plainMetadata refuses tensors whose storage does not hold their values: torch
// conjugates and negates lazily and says so only here.
func plainMetadata(v Value) error {
	d, _ := v.(*Dict)
	for _, bit := range []string{"conj", "neg"} {
		if x, _ := d.Get(bit); x == true {
			return fmt.Errorf("a tensor is stored with its %s bit set: call resolve_%s() before saving", bit, bit)
		}
	}
	return nil
}

// check verifies that the tensor lies inside its storage.
func (t *Tensor) check() error {
	if len(t.Stride) != len(t.Shape) {
		return fmt.Errorf("a tensor has %d dimensions but %d strides", len(t.Shape), len(t.Stride))
	}
	extent, err := weights.Extent(t.Shape, t.Stride)
	if err != nil {
		return err
	}
	es := int64(t.DType.Size())
	if es == 0 {
		return fmt.Errorf("a tensor has the element type %s, which torch does not store", t.DType)
	}
	have := t.Storage.Bytes()
	if t.StorageOffset < 0 || t.StorageOffset > have/es || extent > have/es-t.StorageOffset {
		return fmt.Errorf("a tensor of shape %v at offset %d leaves its storage %q of %d bytes",
			t.Shape, t.StorageOffset, t.Storage.Key, have)
	}
	return nil
}

// rebuildParameter reads _rebuild_parameter (tensor, requires_grad, hooks) and
// _rebuild_parameter_with_state (… state).
func rebuildParameter(_ *machine, fn *Class, a []Value) (Value, error) {
	want := 3
	if fn.Name == "_rebuild_parameter_with_state" {
		want = 4
	}
	if len(a) != want {
		return nil, errArgs
	}
	base, ok1 := a[0].(*Tensor)
	rg, ok2 := a[1].(bool)
	if !ok1 || !ok2 || base.Param != nil {
		return nil, errArgs
	}
	t := *base
	t.Param = &Param{RequiresGrad: rg}
	if d, ok := a[2].(*Dict); !ok || d.Len() > 0 {
		t.Param.Hooks = a[2]
	}
	if want == 4 {
		t.Param.State, t.Param.HasState = a[3], true
	}
	return &t, nil
}

// rebuildFromType reads _rebuild_from_type_v2 (func, type, args, state), which
// torch writes for tensors with attributes or of a subclass.
func rebuildFromType(m *machine, _ *Class, a []Value) (Value, error) {
	if len(a) != 4 {
		return nil, errArgs
	}
	fn, ok1 := a[0].(*Class)
	typ, ok2 := a[1].(*Class)
	args, ok3 := a[2].(*Tuple)
	if !ok1 || !ok2 || !ok3 {
		return nil, errArgs
	}
	var v Value
	var err error
	switch {
	case fn.Module == "torch._utils" && strings.HasPrefix(fn.Name, "_rebuild_tensor"):
		v, err = rebuildTensor(m, fn, args.Items)
	case fn.Module == "torch._utils" && strings.HasPrefix(fn.Name, "_rebuild_parameter"):
		v, err = rebuildParameter(m, fn, args.Items)
	default:
		return nil, nil // some other function: stays an Object
	}
	if err != nil {
		return nil, err
	}
	t := v.(*Tensor)
	t.Wrap = &Wrap{Type: typ, State: a[3]}
	return t, nil
}
