package torch

import (
	"errors"
	"fmt"
	"strings"
)

func opGlobal(m *machine) error {
	module, err := m.src.line()
	if err != nil {
		return err
	}
	mod := string(module)
	name, err := m.src.line()
	if err != nil {
		return err
	}
	c, err := m.class(mod, string(name))
	if err != nil {
		return err
	}
	return m.push(c)
}

func opStackGlobal(m *machine) error {
	name, err := m.pop()
	if err != nil {
		return err
	}
	module, err := m.pop()
	if err != nil {
		return err
	}
	n, ok1 := name.(string)
	mod, ok2 := module.(string)
	if !ok1 || !ok2 {
		return errors.New("the name of a class is not a string")
	}
	c, err := m.class(mod, n)
	if err != nil {
		return err
	}
	return m.push(c)
}

func opReduce(m *machine) error {
	fn, args, err := m.call()
	if err != nil {
		return err
	}
	v, err := m.reduce(fn, args)
	if err != nil {
		return err
	}
	return m.push(v)
}

// call pops a class and its argument tuple.
func (m *machine) call() (*Class, *Tuple, error) {
	a, err := m.pop()
	if err != nil {
		return nil, nil, err
	}
	f, err := m.pop()
	if err != nil {
		return nil, nil, err
	}
	fn, ok := f.(*Class)
	if !ok {
		return nil, nil, fmt.Errorf("%s is called, which is refused: only classes can be", kindOf(f))
	}
	args, ok := a.(*Tuple)
	if !ok {
		return nil, nil, fmt.Errorf("the arguments of %s are %s, not a tuple", fn, kindOf(a))
	}
	return fn, args, nil
}

// rebuilders are the calls that the reader models; all others make an Object.
var rebuilders = map[string]func(m *machine, fn *Class, a []Value) (Value, error){
	"collections.OrderedDict":                    rebuildOrderedDict,
	"torch.Size":                                 rebuildSize,
	"builtins.set":                               rebuildSet,
	"builtins.frozenset":                         rebuildSet,
	"builtins.complex":                           rebuildComplex,
	"builtins.bytes":                             rebuildBytes,
	"_codecs.encode":                             rebuildEncoded,
	"builtins.getattr":                           rebuildGetattr,
	"torch._utils._rebuild_tensor":               rebuildTensor,
	"torch._utils._rebuild_tensor_v2":            rebuildTensor,
	"torch._utils._rebuild_tensor_v3":            rebuildTensor,
	"torch._utils._rebuild_parameter":            rebuildParameter,
	"torch._utils._rebuild_parameter_with_state": rebuildParameter,
	"torch._tensor._rebuild_from_type_v2":        rebuildFromType,
}

func (m *machine) reduce(fn *Class, args *Tuple) (Value, error) {
	if f := rebuilders[fn.String()]; f != nil {
		v, err := f(m, fn, args.Items)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fn, err)
		}
		if v != nil {
			return v, nil
		}
	}
	return &Object{Class: fn, Make: Reduce, Args: args}, nil
}

var errArgs = errors.New("the arguments are not what torch or Python writes")

func rebuildOrderedDict(_ *machine, _ *Class, a []Value) (Value, error) {
	d := &Dict{Ordered: true}
	if len(a) == 0 {
		return d, nil
	}
	// Python 2 passes a list of [key, value].
	l, ok := a[0].(*List)
	if !ok || len(a) > 1 {
		return nil, errArgs
	}
	for _, x := range l.Items {
		var kv []Value
		switch p := x.(type) {
		case *List:
			kv = p.Items
		case *Tuple:
			kv = p.Items
		}
		if len(kv) != 2 {
			return nil, errArgs
		}
		if err := setItems(d, kv); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// intsOf reads a tuple of dimensions or strides.
func intsOf(v Value) ([]int, bool) {
	switch t := v.(type) {
	case Size:
		return t, true
	case *Tuple:
		return intItems(t.Items)
	case *List:
		return intItems(t.Items)
	}
	return nil, false
}

// maxRank bounds the dimensions of a tensor, as torch does.
const maxRank = 64

func intItems(items []Value) ([]int, bool) {
	if len(items) > maxRank {
		return nil, false
	}
	out := make([]int, len(items))
	for i, x := range items {
		n, ok := x.(int64)
		if !ok {
			return nil, false
		}
		out[i] = int(n)
	}
	return out, true
}

func rebuildSize(_ *machine, _ *Class, a []Value) (Value, error) {
	if len(a) == 0 {
		return Size{}, nil
	}
	s, ok := intsOf(a[0])
	if !ok || len(a) > 1 {
		return nil, errArgs
	}
	return Size(s), nil
}

func rebuildSet(_ *machine, fn *Class, a []Value) (Value, error) {
	s := &Set{Frozen: fn.Name == "frozenset"}
	if len(a) == 0 {
		return s, nil
	}
	if len(a) > 1 {
		return nil, errArgs
	}
	switch x := a[0].(type) {
	case *List:
		return s, s.add(x.Items)
	case *Tuple:
		return s, s.add(x.Items)
	case *Set:
		return s, s.add(x.Items)
	}
	return nil, errArgs
}

func rebuildComplex(_ *machine, _ *Class, a []Value) (Value, error) {
	if len(a) != 2 {
		return nil, errArgs
	}
	re, ok1 := a[0].(float64)
	im, ok2 := a[1].(float64)
	if !ok1 || !ok2 {
		return nil, errArgs
	}
	return complex(re, im), nil
}

func rebuildBytes(_ *machine, _ *Class, a []Value) (Value, error) {
	if len(a) == 0 {
		return Bytes(""), nil
	}
	return nil, nil
}

// rebuildEncoded reads bytes as Python 3 writes them in protocols 0 to 2: text
// whose code points are the bytes.
func rebuildEncoded(_ *machine, _ *Class, a []Value) (Value, error) {
	if len(a) != 2 {
		return nil, errArgs
	}
	s, ok1 := a[0].(string)
	enc, ok2 := a[1].(string)
	if !ok1 || !ok2 || strings.ReplaceAll(enc, "-", "") != "latin1" {
		return nil, errArgs
	}
	out := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 255 {
			return nil, errors.New("text is not Latin-1")
		}
		out = append(out, byte(r))
	}
	return Bytes(out), nil
}

// rebuildGetattr admits members of enums and nothing else.
func rebuildGetattr(_ *machine, _ *Class, a []Value) (Value, error) {
	if len(a) != 2 {
		return nil, errArgs
	}
	c, ok1 := a[0].(*Class)
	name, ok2 := a[1].(string)
	if !ok1 || !ok2 {
		return nil, errArgs
	}
	if !enumClasses[c.String()] || strings.HasPrefix(name, "_") {
		return nil, fmt.Errorf("attribute %.40q of %s is asked for, which is refused: only members of known enums are read", name, c)
	}
	return nil, nil
}

func opNewObj(m *machine) error {
	fn, args, err := m.call()
	if err != nil {
		return err
	}
	if fn.String() == "collections.OrderedDict" && len(args.Items) == 0 {
		return m.push(&Dict{Ordered: true})
	}
	if err := plainClass(fn); err != nil {
		return err
	}
	return m.push(&Object{Class: fn, Make: NewObj, Args: args})
}

// plainClass refuses to make instances of functions that the reader models.
func plainClass(fn *Class) error {
	if rebuilders[fn.String()] != nil && fn.Module != "builtins" && fn.Module != "torch" && fn.Module != "collections" || fn.String() == "builtins.getattr" {
		return fmt.Errorf("%s is a function, not a class", fn)
	}
	return nil
}

func opNewObjEx(m *machine) error {
	k, err := m.pop()
	if err != nil {
		return err
	}
	kw, ok := k.(*Dict)
	if !ok {
		return fmt.Errorf("keyword arguments are %s, not a dict", kindOf(k))
	}
	fn, args, err := m.call()
	if err != nil {
		return err
	}
	if err := plainClass(fn); err != nil {
		return err
	}
	return m.push(&Object{Class: fn, Make: NewObjEx, Args: args, Kwargs: kw})
}

// opInst and opObj are how protocols 0 and 1 make instances.
func opInst(m *machine) error {
	if err := opGlobal(m); err != nil {
		return err
	}
	c, err := m.pop()
	if err != nil {
		return err
	}
	args, err := m.popMark()
	if err != nil {
		return err
	}
	v, err := m.reduce(c.(*Class), &Tuple{args})
	if err != nil {
		return err
	}
	return m.push(v)
}

func opObj(m *machine) error {
	args, err := m.popMark()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return errStack
	}
	c, ok := args[0].(*Class)
	if !ok {
		return fmt.Errorf("%s is called, which is refused: only classes can be", kindOf(args[0]))
	}
	v, err := m.reduce(c, &Tuple{args[1:]})
	if err != nil {
		return err
	}
	return m.push(v)
}

func opBuild(m *machine) error {
	state, err := m.pop()
	if err != nil {
		return err
	}
	v, err := m.top()
	if err != nil {
		return err
	}
	switch o := v.(type) {
	case *Object:
		if o.HasState {
			return fmt.Errorf("%s gets its state twice", kindOf(v))
		}
		o.State, o.HasState = state, true
	case *Dict:
		if !o.Ordered || o.Attrs != nil {
			return fmt.Errorf("%s gets attributes, which is refused", kindOf(v))
		}
		o.Attrs = state
	default:
		return fmt.Errorf("%s has no state", kindOf(v))
	}
	return nil
}
