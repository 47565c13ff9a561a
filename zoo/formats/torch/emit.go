package torch

import (
	"fmt"
	"strconv"
)

// storage writes torch's reference to a storage:
// ('storage', class, key, location, numel) and BINPERSID.
func (p *pickler) storage(s *Storage) error {
	i, ok := p.storages[s]
	if !ok {
		i = len(p.order)
		p.storages[s] = i
		p.order = append(p.order, s)
	}
	class, numel := s.class()
	p.out = append(p.out, '(')
	_ = p.str("storage")
	p.global(class)
	_ = p.str(strconv.Itoa(i))
	device := s.Device
	if device == "" {
		device = "cpu"
	}
	if err := p.str(device); err != nil {
		return err
	}
	p.int(numel)
	p.out = append(p.out, 't')
	p.memoize(nil)
	p.out = append(p.out, 'Q')
	return nil
}

// class is the storage class that torch writes, and the number of its elements.
func (s *Storage) class() (Class, int64) {
	if s.Kind != "" {
		return Class{"torch", s.Kind}, s.Elements
	}
	if name, ok := storageClassOf(s.DType); ok && !s.Untyped {
		return Class{"torch", name}, s.Elements
	}
	// Element types without a storage class of their own lie in bytes.
	return Class{"torch.storage", untypedStorage}, s.Bytes()
}

func (p *pickler) tensor(t *Tensor) error {
	if t.Storage == nil {
		return fmt.Errorf("a tensor of shape %v has no storage", t.Shape)
	}
	if err := t.check(); err != nil {
		return err
	}
	switch {
	case t.Param != nil:
		return p.parameter(t)
	case t.Wrap != nil:
		return p.wrapped(t)
	}
	fn, args, err := p.tensorCall(t)
	if err != nil {
		return err
	}
	p.global(fn)
	if err := args(); err != nil {
		return err
	}
	p.out = append(p.out, 'R')
	p.memoize(t)
	return nil
}

// tensorCall is the function that rebuilds a tensor and what writes its
// argument tuple.
func (p *pickler) tensorCall(t *Tensor) (Class, func() error, error) {
	storageType, _ := t.Storage.class()
	v3 := storageType.Name == untypedStorage && !(t.Storage.Untyped && t.DType == t.Storage.DType)
	fn := Class{"torch._utils", "_rebuild_tensor_v2"}
	var dtype *Class
	if v3 {
		fn.Name = "_rebuild_tensor_v3"
		if dtype = DTypeClass(t.DType); dtype == nil {
			return fn, nil, fmt.Errorf("torch has no element type for %s", t.DType)
		}
	} else if t.DType != t.Storage.DType {
		return fn, nil, fmt.Errorf("a tensor of %s views a storage of %s", t.DType, t.Storage.DType)
	}
	return fn, func() error {
		p.out = append(p.out, '(')
		if err := p.storage(t.Storage); err != nil {
			return err
		}
		p.int(t.StorageOffset)
		p.ints(t.Shape)
		p.ints(t.Stride)
		p.bool(t.RequiresGrad)
		if err := p.hooks(t.Hooks); err != nil {
			return err
		}
		if v3 {
			p.global(*dtype)
		}
		if t.HasMetadata {
			if err := p.save(t.Metadata); err != nil {
				return err
			}
		}
		p.out = append(p.out, 't')
		p.memoize(nil)
		return nil
	}, nil
}

func (p *pickler) hooks(v Value) error {
	if v == nil {
		p.emptyOrdered(nil)
		return nil
	}
	return p.save(v)
}

func (p *pickler) parameter(t *Tensor) error {
	name := "_rebuild_parameter"
	if t.Param.HasState {
		name = "_rebuild_parameter_with_state"
	}
	p.global(Class{"torch._utils", name})
	p.out = append(p.out, '(')
	base := *t
	base.Param = nil
	if err := p.tensor(&base); err != nil {
		return err
	}
	p.bool(t.Param.RequiresGrad)
	if err := p.hooks(t.Param.Hooks); err != nil {
		return err
	}
	if t.Param.HasState {
		if err := p.save(t.Param.State); err != nil {
			return err
		}
	}
	p.out = append(p.out, 't')
	p.memoize(nil)
	p.out = append(p.out, 'R')
	p.memoize(t)
	return nil
}

// wrapped writes _rebuild_from_type_v2(func, type, args, state).
func (p *pickler) wrapped(t *Tensor) error {
	p.global(Class{"torch._tensor", "_rebuild_from_type_v2"})
	p.out = append(p.out, '(')
	fn, args, err := p.tensorCall(t)
	if err != nil {
		return err
	}
	p.global(fn)
	if err := p.class(t.Wrap.Type); err != nil {
		return err
	}
	if err := args(); err != nil {
		return err
	}
	if err := p.save(t.Wrap.State); err != nil {
		return err
	}
	p.out = append(p.out, 't')
	p.memoize(nil)
	p.out = append(p.out, 'R')
	p.memoize(t)
	return nil
}
