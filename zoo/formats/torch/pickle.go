package torch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
)

// pickler writes values as opcodes. It puts every composite value and every
// string into the memo, so that what is shared stays shared.
type pickler struct {
	out      []byte
	proto    int
	memo     map[Value]int // pointers, and strings by value
	next     int
	storages map[*Storage]int
	order    []*Storage
}

// Pickle writes one bare pickle of protocol 2 or 4. Storages are referred to by
// their number in the order of first use, which is also the order of the
// returned list.
func Pickle(root Value, protocol int) ([]byte, []*Storage, error) {
	if protocol != 2 && protocol != 4 {
		return nil, nil, fmt.Errorf("pickles of protocol %d are not written; 2 and 4 are", protocol)
	}
	if err := checkGraph(root); err != nil {
		return nil, nil, err
	}
	p := &pickler{proto: protocol, memo: map[Value]int{}, storages: map[*Storage]int{}}
	p.out = append(p.out, 0x80, byte(protocol))
	if err := p.save(root); err != nil {
		return nil, nil, err
	}
	p.out = append(p.out, '.')
	return p.out, p.order, nil
}

// memoize stores the top of the stack under the next number.
func (p *pickler) memoize(v Value) {
	if v != nil {
		p.memo[v] = p.next
	}
	switch i := p.next; {
	case p.proto >= 4:
		p.out = append(p.out, 0x94)
	case i < 256:
		p.out = append(p.out, 'q', byte(i))
	default:
		p.out = binary.LittleEndian.AppendUint32(append(p.out, 'r'), uint32(i))
	}
	p.next++
}

// recall puts a value that is in the memo on the stack.
func (p *pickler) recall(v Value) bool {
	i, ok := p.memo[v]
	switch {
	case !ok:
	case i < 256:
		p.out = append(p.out, 'h', byte(i))
	default:
		p.out = binary.LittleEndian.AppendUint32(append(p.out, 'j'), uint32(i))
	}
	return ok
}

func (p *pickler) save(v Value) error {
	switch x := v.(type) {
	case nil:
		p.out = append(p.out, 'N')
	case bool:
		p.bool(x)
	case int:
		p.int(int64(x))
	case int64:
		p.int(x)
	case *big.Int:
		p.long(x)
	case float64:
		p.out = binary.BigEndian.AppendUint64(append(p.out, 'G'), math.Float64bits(x))
	case complex128:
		p.global(Class{"builtins", "complex"})
		p.save(real(x))
		p.save(imag(x))
		p.out = append(p.out, 0x86, 'R')
		p.memoize(nil)
	case string:
		return p.str(x)
	case Bytes:
		return p.bytes(x)
	case Size:
		p.global(Class{"torch", "Size"})
		p.ints(x)
		p.out = append(p.out, 0x85, 'R')
		p.memoize(nil)
	case *Class:
		if x == nil {
			return errors.New("a class is nil")
		}
		return p.class(x)
	case *Storage:
		if x == nil {
			return errors.New("a storage is nil")
		}
		return p.storage(x)
	case *List, *Tuple, *Dict, *Set, *Object, *Tensor:
		if !composite(v) {
			return fmt.Errorf("a nil %T has no place in a pickle", v)
		}
		return p.composite(v)
	default:
		return fmt.Errorf("a Go value of type %T has no place in a pickle", v)
	}
	return nil
}

func (p *pickler) composite(v Value) error {
	if p.recall(v) {
		return nil
	}
	switch x := v.(type) {
	case *List:
		p.out = append(p.out, ']')
		p.memoize(v)
		return p.appends(x.Items)
	case *Tuple:
		return p.tuple(x)
	case *Dict:
		return p.dict(x)
	case *Set:
		return p.set(x)
	case *Object:
		return p.object(x)
	}
	return p.tensor(v.(*Tensor))
}

func (p *pickler) bool(v bool) {
	c := byte(0x89)
	if v {
		c = 0x88
	}
	p.out = append(p.out, c)
}

func (p *pickler) int(v int64) {
	switch {
	case v >= 0 && v < 1<<8:
		p.out = append(p.out, 'K', byte(v))
	case v >= 0 && v < 1<<16:
		p.out = append(p.out, 'M', byte(v), byte(v>>8))
	case v == int64(int32(v)):
		p.out = binary.LittleEndian.AppendUint32(append(p.out, 'J'), uint32(v))
	default:
		n := 8
		for n > 1 && v>>(8*n-9) == v>>63 { // the top byte only repeats the sign
			n--
		}
		p.out = append(p.out, 0x8a, byte(n))
		for i := range n {
			p.out = append(p.out, byte(v>>(8*i)))
		}
	}
}

func (p *pickler) long(z *big.Int) {
	if z.IsInt64() {
		p.int(z.Int64())
		return
	}
	n := z.BitLen()/8 + 1
	w := z
	if z.Sign() < 0 {
		w = new(big.Int).Add(z, new(big.Int).Lsh(big.NewInt(1), uint(8*n)))
	}
	be := w.FillBytes(make([]byte, n))
	if n < 256 {
		p.out = append(p.out, 0x8a, byte(n))
	} else {
		p.out = binary.LittleEndian.AppendUint32(append(p.out, 0x8b), uint32(n))
	}
	for i := n - 1; i >= 0; i-- {
		p.out = append(p.out, be[i])
	}
}

// maxMemoString is how long a string may be to be written once and recalled.
const maxMemoString = 1 << 12

func (p *pickler) str(s string) error {
	if uint64(len(s)) > math.MaxUint32 {
		return errors.New("a string has more than 4 GiB")
	}
	if p.recall(s) {
		return nil
	}
	if p.proto >= 4 && len(s) < 256 {
		p.out = append(p.out, 0x8c, byte(len(s)))
	} else {
		p.out = binary.LittleEndian.AppendUint32(append(p.out, 'X'), uint32(len(s)))
	}
	p.out = append(p.out, s...)
	if len(s) <= maxMemoString {
		p.memoize(s)
	} else {
		p.memoize(nil)
	}
	return nil
}

// bytes writes Python's bytes: in protocol 2 as text that is encoded again.
func (p *pickler) bytes(b Bytes) error {
	if uint64(len(b)) > math.MaxInt32 {
		return errors.New("bytes have more than 2 GiB")
	}
	if p.proto >= 4 {
		if len(b) < 256 {
			p.out = append(p.out, 'C', byte(len(b)))
		} else {
			p.out = binary.LittleEndian.AppendUint32(append(p.out, 'B'), uint32(len(b)))
		}
		p.out = append(p.out, b...)
		p.memoize(nil)
		return nil
	}
	if len(b) == 0 {
		p.global(Class{"builtins", "bytes"})
		p.out = append(p.out, ')', 'R')
		p.memoize(nil)
		return nil
	}
	p.global(Class{"_codecs", "encode"})
	text := make([]rune, len(b))
	for i := range len(b) {
		text[i] = rune(b[i])
	}
	if err := p.str(string(text)); err != nil {
		return err
	}
	if err := p.str("latin1"); err != nil {
		return err
	}
	p.out = append(p.out, 0x86, 'R')
	p.memoize(nil)
	return nil
}

// ints writes a tuple of integers.
func (p *pickler) ints(v []int) {
	if len(v) > 3 {
		p.out = append(p.out, '(')
	}
	for _, n := range v {
		p.int(int64(n))
	}
	p.closeTuple(len(v))
	if len(v) > 0 {
		p.memoize(nil)
	}
}

// closeTuple makes a tuple of the n topmost values.
func (p *pickler) closeTuple(n int) {
	p.out = append(p.out, [...]byte{')', 0x85, 0x86, 0x87, 't'}[min(n, 4)])
}

func (p *pickler) tuple(t *Tuple) error {
	if len(t.Items) > 3 {
		p.out = append(p.out, '(')
	}
	for _, x := range t.Items {
		if err := p.save(x); err != nil {
			return err
		}
	}
	p.closeTuple(len(t.Items))
	if len(t.Items) > 0 {
		p.memoize(t)
	}
	return nil
}

// batch is how many items Python puts behind one mark.
const batch = 1000

func (p *pickler) appends(items []Value) error {
	for len(items) > 0 {
		part := items[:min(len(items), batch)]
		items = items[len(part):]
		if len(part) > 1 {
			p.out = append(p.out, '(')
		}
		for _, x := range part {
			if err := p.save(x); err != nil {
				return err
			}
		}
		if len(part) > 1 {
			p.out = append(p.out, 'e')
		} else {
			p.out = append(p.out, 'a')
		}
	}
	return nil
}

func (p *pickler) pairs(pairs []Pair) error {
	for len(pairs) > 0 {
		part := pairs[:min(len(pairs), batch)]
		pairs = pairs[len(part):]
		if len(part) > 1 {
			p.out = append(p.out, '(')
		}
		for _, x := range part {
			if err := p.save(x.Key); err != nil {
				return err
			}
			if err := p.save(x.Value); err != nil {
				return err
			}
		}
		if len(part) > 1 {
			p.out = append(p.out, 'u')
		} else {
			p.out = append(p.out, 's')
		}
	}
	return nil
}

func (p *pickler) dict(d *Dict) error {
	if !d.Ordered {
		p.out = append(p.out, '}')
		p.memoize(d)
		return p.pairs(d.Pairs())
	}
	p.emptyOrdered(d)
	if err := p.pairs(d.Pairs()); err != nil {
		return err
	}
	return p.build(d.Attrs, d.Attrs != nil)
}

func (p *pickler) emptyOrdered(d *Dict) {
	p.global(Class{"collections", "OrderedDict"})
	p.out = append(p.out, ')', 'R')
	if d == nil {
		p.memoize(nil)
	} else {
		p.memoize(d)
	}
}

func (p *pickler) build(state Value, has bool) error {
	if !has {
		return nil
	}
	if err := p.save(state); err != nil {
		return err
	}
	p.out = append(p.out, 'b')
	return nil
}

// set writes set([…]) so that the order of the items is kept.
func (p *pickler) set(s *Set) error {
	name := "set"
	if s.Frozen {
		name = "frozenset"
	}
	p.global(Class{"builtins", name})
	p.out = append(p.out, ']')
	p.memoize(nil)
	if err := p.appends(s.Items); err != nil {
		return err
	}
	p.out = append(p.out, 0x85, 'R')
	p.memoize(s)
	return nil
}

func (p *pickler) object(o *Object) error {
	if o.Class == nil {
		return errors.New("an object has no class")
	}
	if err := p.class(o.Class); err != nil {
		return err
	}
	args := o.Args
	if args == nil {
		args = &Tuple{}
	}
	if err := p.composite(args); err != nil {
		return err
	}
	switch o.Make {
	case Reduce:
		p.out = append(p.out, 'R')
	case NewObj:
		p.out = append(p.out, 0x81)
	case NewObjEx:
		kw := o.Kwargs
		if kw == nil {
			kw = &Dict{}
		}
		if p.proto < 4 {
			return errors.New("BUG: keyword arguments in protocol 2")
		}
		if err := p.composite(kw); err != nil {
			return err
		}
		p.out = append(p.out, 0x92)
	}
	p.memoize(o)
	if err := p.appends(o.Items); err != nil {
		return err
	}
	if err := p.pairs(o.Pairs); err != nil {
		return err
	}
	return p.build(o.State, o.HasState)
}

func (p *pickler) class(c *Class) error {
	if strings.ContainsAny(c.Module+c.Name, "\n\r") || c.Name == "" {
		return fmt.Errorf("class name %q is broken", c.String())
	}
	p.global(*c)
	return nil
}

// global names a class; below protocol 3 Python expects the names of Python 2.
func (p *pickler) global(c Class) {
	if p.recall(c) {
		return
	}
	if p.proto >= 4 {
		p.str(c.Module)
		p.str(c.Name)
		p.out = append(p.out, 0x93)
		p.memoize(c)
		return
	}
	module := c.Module
	switch module {
	case "builtins":
		module = "__builtin__"
	case "copyreg":
		module = "copy_reg"
	}
	p.out = append(p.out, 'c')
	p.out = append(p.out, module...)
	p.out = append(p.out, '\n')
	p.out = append(p.out, c.Name...)
	p.out = append(p.out, '\n')
	p.memoize(c)
}

// protocolFor is 2, as torch.save writes by default, unless a value needs 4:
// nested classes and keyword arguments.
func protocolFor(root Value) int {
	proto := 2
	seen := map[Value]bool{}
	var visit func(v Value) error
	visit = func(v Value) error {
		var c *Class
		switch x := v.(type) {
		case *Class:
			c = x
		case *Object:
			c = x.Class
			if x.Make == NewObjEx {
				proto = 4
			}
		}
		if c != nil && strings.Contains(c.Name, ".") {
			proto = 4
		}
		if !composite(v) || seen[v] {
			return nil
		}
		seen[v] = true
		return children(v, visit)
	}
	_ = visit(root)
	return proto
}
