package torch

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"strconv"
)

// Pair is an entry of a Dict.
type Pair struct{ Key, Value Value }

// Dict is a Python dict or collections.OrderedDict: ordered, with keys of any
// hashable type. Keys that are equal in Python (1, 1.0 and True) are one key.
type Dict struct {
	// Ordered tells an OrderedDict.
	Ordered bool
	// Attrs holds instance attributes, which only OrderedDicts have (a
	// state_dict carries _metadata in this way); nil for none.
	Attrs Value

	pairs []Pair
	index map[string]int
	dead  int
}

// NewDict makes a dict from keys and values in turn.
func NewDict(keysAndValues ...Value) *Dict {
	d := &Dict{}
	for i := 0; i+1 < len(keysAndValues); i += 2 {
		d.Set(keysAndValues[i], keysAndValues[i+1])
	}
	return d
}

// NewOrderedDict makes an OrderedDict from keys and values in turn.
func NewOrderedDict(keysAndValues ...Value) *Dict {
	d := NewDict(keysAndValues...)
	d.Ordered = true
	return d
}

// absent marks a deleted entry.
type absent struct{}

// Len is the number of entries.
func (d *Dict) Len() int { return len(d.pairs) - d.dead }

// Get looks up a key.
func (d *Dict) Get(key Value) (Value, bool) {
	if d == nil {
		return nil, false
	}
	i, ok := d.index[hashKey(key)]
	if !ok {
		return nil, false
	}
	return d.pairs[i].Value, true
}

// Set puts a value under a key; a new key goes to the end.
func (d *Dict) Set(key, value Value) {
	h := hashKey(key)
	if i, ok := d.index[h]; ok {
		d.pairs[i].Value = value
		return
	}
	if d.index == nil {
		d.index = map[string]int{}
	}
	d.index[h] = len(d.pairs)
	d.pairs = append(d.pairs, Pair{key, value})
}

// Delete removes a key if it is there.
func (d *Dict) Delete(key Value) {
	h := hashKey(key)
	i, ok := d.index[h]
	if !ok {
		return
	}
	delete(d.index, h)
	d.pairs[i] = Pair{absent{}, nil}
	d.dead++
}

// Pairs is all entries in order. Values may be changed in place only by Set.
func (d *Dict) Pairs() []Pair {
	if d == nil {
		return nil
	}
	if d.dead == 0 {
		return d.pairs[:len(d.pairs):len(d.pairs)]
	}
	kept := make([]Pair, 0, d.Len())
	for _, p := range d.pairs {
		if _, gone := p.Key.(absent); !gone {
			kept = append(kept, p)
		}
	}
	d.pairs, d.dead = kept, 0
	for i, p := range kept {
		d.index[hashKey(p.Key)] = i
	}
	return kept
}

// Copy is a dict with the same entries; the values are shared.
func (d *Dict) Copy() *Dict {
	out := &Dict{Ordered: d.Ordered, Attrs: d.Attrs}
	for _, p := range d.Pairs() {
		out.Set(p.Key, p.Value)
	}
	return out
}

// hashKey is equal for keys that are equal in Python. Keys of classes that the
// reader does not model are equal only to themselves.
func hashKey(key Value) string { return string(appendKey(nil, key, 0)) }

// maxKeyDepth bounds tuples of tuples in a key.
const maxKeyDepth = 32

func appendKey(b []byte, key Value, depth int) []byte {
	switch k := key.(type) {
	case nil:
		return append(b, 'n')
	case string:
		b = append(b, 's')
		b = binary.AppendUvarint(b, uint64(len(k)))
		return append(b, k...)
	case Bytes:
		b = append(b, 'b')
		b = binary.AppendUvarint(b, uint64(len(k)))
		return append(b, k...)
	case bool:
		if k {
			return append(b, "i1;"...)
		}
		return append(b, "i0;"...)
	case int64:
		b = append(b, 'i')
		b = strconv.AppendInt(b, k, 10)
		return append(b, ';')
	case int:
		return appendKey(b, int64(k), depth)
	case *big.Int:
		b = append(b, 'i')
		b = k.Append(b, 16)
		return append(b, "x;"...)
	case float64:
		if k == math.Trunc(k) && math.Abs(k) < 1<<62 {
			return appendKey(b, int64(k), depth)
		}
		b = append(b, 'f')
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(k))
	case *Tuple:
		if depth >= maxKeyDepth {
			break
		}
		b = append(b, '(')
		for _, x := range k.Items {
			b = appendKey(b, x, depth+1)
		}
		return append(b, ')')
	case *Class:
		b = append(b, 'c')
		b = strconv.AppendQuote(b, k.Module)
		return strconv.AppendQuote(b, k.Name)
	}
	return fmt.Appendf(b, "p%T%p", key, key)
}

// hashable reports whether Python accepts the value as a key.
func hashable(key Value) bool {
	switch k := key.(type) {
	case *List, *Dict:
		return false
	case *Set:
		return k.Frozen
	case *Tuple:
		for _, x := range k.Items {
			switch x.(type) {
			case *List, *Dict:
				return false
			}
		}
	}
	return true
}
