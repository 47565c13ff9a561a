package torch

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/big"
	"slices"

	"github.com/lathe-ml/lathe/zoo/formats/fixture"
)

// difference finds the first place where two values differ: in structure, in
// bytes, or in what is shared. It is empty when they mean the same.
func difference(a, b Value) string {
	d := differ{seen: map[Value]Value{}, back: map[Value]Value{}}
	return d.values("", a, b)
}

type differ struct{ seen, back map[Value]Value }

// pair notes that two pointers correspond, both ways.
func (d *differ) pair(path string, a, b Value) (done bool, diff string) {
	x, ok1 := d.seen[a]
	y, ok2 := d.back[b]
	if ok1 != ok2 || ok1 && (x != b || y != a) {
		return true, path + ": shared differently"
	}
	d.seen[a], d.back[b] = b, a
	return ok1, ""
}

func (d *differ) lists(path string, a, b []Value) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%s: %d and %d items", path, len(a), len(b))
	}
	for i := range a {
		if s := d.values(fmt.Sprintf("%s/%d", path, i), a[i], b[i]); s != "" {
			return s
		}
	}
	return ""
}

func (d *differ) pairs(path string, a, b []Pair) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%s: %d and %d entries", path, len(a), len(b))
	}
	for i := range a {
		if s := d.values(path+"/key", a[i].Key, b[i].Key); s != "" {
			return s
		}
		if s := d.values(path+"/"+KeyString(a[i].Key), a[i].Value, b[i].Value); s != "" {
			return s
		}
	}
	return ""
}

func first(s ...string) string {
	for _, x := range s {
		if x != "" {
			return x
		}
	}
	return ""
}

func (d *differ) values(path string, a, b Value) string {
	if fmt.Sprintf("%T", a) != fmt.Sprintf("%T", b) {
		return fmt.Sprintf("%s: %T and %T", path, a, b)
	}
	if composite(a) {
		if t, ok := a.(*Tuple); !ok || len(t.Items) > 0 { // () is one object in Python
			if done, diff := d.pair(path, a, b); done {
				return diff
			}
		}
	}
	switch x := a.(type) {
	case *List:
		return d.lists(path, x.Items, b.(*List).Items)
	case *Tuple:
		return d.lists(path, x.Items, b.(*Tuple).Items)
	case *Set:
		if x.Frozen != b.(*Set).Frozen {
			return path + ": frozen differs"
		}
		return d.lists(path, x.Items, b.(*Set).Items)
	case *Dict:
		y := b.(*Dict)
		if x.Ordered != y.Ordered {
			return path + ": ordered differs"
		}
		return first(d.pairs(path, x.Pairs(), y.Pairs()), d.values(path+"/attrs", x.Attrs, y.Attrs))
	case *Object:
		return d.objects(path, x, b.(*Object))
	case *Tensor:
		return d.tensors(path, x, b.(*Tensor))
	case *Storage:
		return d.storages(path, x, b.(*Storage))
	case *Class:
		if *x != *b.(*Class) {
			return fmt.Sprintf("%s: %v and %v", path, x, b)
		}
	case Size:
		if !slices.Equal(x, b.(Size)) {
			return fmt.Sprintf("%s: %v and %v", path, x, b)
		}
	case *big.Int:
		if x.Cmp(b.(*big.Int)) != 0 {
			return fmt.Sprintf("%s: %v and %v", path, x, b)
		}
	case float64:
		if math.Float64bits(x) != math.Float64bits(b.(float64)) {
			return fmt.Sprintf("%s: %v and %v", path, x, b)
		}
	default:
		if a != b {
			return fmt.Sprintf("%s: %v and %v", path, a, b)
		}
	}
	return ""
}

func (d *differ) objects(path string, x, y *Object) string {
	if *x.Class != *y.Class || x.Make != y.Make || x.HasState != y.HasState || (x.Kwargs == nil) != (y.Kwargs == nil) {
		return fmt.Sprintf("%s: %v and %v", path, x.Class, y.Class)
	}
	s := first(d.values(path+"/args", x.Args, y.Args), d.lists(path, x.Items, y.Items), d.pairs(path, x.Pairs, y.Pairs), d.values(path, x.State, y.State))
	if s == "" && x.Kwargs != nil {
		s = d.values(path+"/kwargs", x.Kwargs, y.Kwargs)
	}
	return s
}

func (d *differ) tensors(path string, x, y *Tensor) string {
	if x.DType != y.DType || !slices.Equal(x.Shape, y.Shape) || !slices.Equal(x.Stride, y.Stride) ||
		x.StorageOffset != y.StorageOffset || x.RequiresGrad != y.RequiresGrad || (x.Param == nil) != (y.Param == nil) || (x.Wrap == nil) != (y.Wrap == nil) {
		return fmt.Sprintf("%s: tensors %s%v and %s%v", path, x.DType, x.Shape, y.DType, y.Shape)
	}
	s := first(d.storages(path, x.Storage, y.Storage), d.values(path+"/hooks", x.Hooks, y.Hooks), d.values(path+"/metadata", x.Metadata, y.Metadata))
	if s == "" && x.Param != nil {
		s = first(d.values(path+"/param", x.Param.State, y.Param.State), d.values(path+"/hooks", x.Param.Hooks, y.Param.Hooks))
	}
	if s == "" && x.Wrap != nil {
		s = first(d.values(path+"/type", x.Wrap.Type, y.Wrap.Type), d.values(path+"/wrap", x.Wrap.State, y.Wrap.State))
	}
	return s
}

func (d *differ) storages(path string, x, y *Storage) string {
	if done, diff := d.pair(path, x, y); done {
		return diff
	}
	if x.Bytes() != y.Bytes() || x.Device != y.Device || x.Kind != y.Kind {
		return fmt.Sprintf("%s: storages of %d and %d bytes", path, x.Bytes(), y.Bytes())
	}
	if x.Data == nil || y.Data == nil {
		return ""
	}
	p, q := make([]byte, x.Bytes()), make([]byte, y.Bytes())
	if _, err := x.Data.ReadAt(p, 0); err != nil && err != io.EOF {
		return path + ": " + err.Error()
	}
	if _, err := y.Data.ReadAt(q, 0); err != nil && err != io.EOF {
		return path + ": " + err.Error()
	}
	if !bytes.Equal(p, q) {
		return path + ": other bytes"
	}
	return ""
}

// encode writes values as a file in memory.
func encode(root Value, opt WriteOptions) ([]byte, error) {
	l, err := NewPlan(root, opt)
	if err != nil {
		return nil, err
	}
	b := make(fixture.Bytes, l.Size)
	return b, l.WriteData(b)
}

func decode(b []byte, opt Options) (*File, error) {
	return Open(bytes.NewReader(b), int64(len(b)), opt)
}
