package torch

import (
	"fmt"
	"strconv"
)

// Named is a tensor and its path inside the values of a file, keys joined by
// slashes: "optimizer_state_dict/base_optimizer_state/state/0/exp_avg".
type Named struct {
	Path   string
	Tensor *Tensor
}

// Tensors lists every tensor below a value by path, in order. A tensor that is
// shared is listed under each path. The state of opaque objects is walked too.
func Tensors(root Value) ([]Named, error) {
	if err := checkGraph(root); err != nil {
		return nil, err
	}
	var out []Named
	walk(root, "", func(path string, v Value) {
		if t, ok := v.(*Tensor); ok {
			out = append(out, Named{path, t})
		}
	})
	return out, nil
}

// walk calls fn for every value by path.
func walk(v Value, path string, fn func(string, Value)) {
	fn(path, v)
	items := func(vs []Value) {
		for i, x := range vs {
			walk(x, join(path, strconv.Itoa(i)), fn)
		}
	}
	switch x := v.(type) {
	case *List:
		items(x.Items)
	case *Tuple:
		items(x.Items)
	case *Dict:
		for _, p := range x.Pairs() {
			walk(p.Value, join(path, KeyString(p.Key)), fn)
		}
	case *Object:
		if x.Args != nil {
			items(x.Args.Items)
		}
		items(x.Items)
		for _, p := range x.Pairs {
			walk(p.Value, join(path, KeyString(p.Key)), fn)
		}
		if x.HasState {
			walk(x.State, path, fn)
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "/" + key
}

// KeyString is a key of a dict as text, as Python's str shows it.
func KeyString(key Value) string {
	switch k := key.(type) {
	case nil:
		return "None"
	case string:
		return k
	case bool:
		if k {
			return "True"
		}
		return "False"
	case *Tuple:
		s := "("
		for i, x := range k.Items {
			if i > 0 {
				s += ", "
			}
			s += KeyString(x)
		}
		return s + ")"
	case *Class:
		return k.String()
	case *Object:
		return k.Class.String()
	}
	return fmt.Sprint(key)
}

// At follows a path of dict keys and indices of
// lists and tuples, and attribute names of objects.
func At(root Value, path ...Value) (Value, bool) {
	v := root
	for _, key := range path {
		switch x := v.(type) {
		case *Dict:
			next, ok := x.Get(key)
			if !ok {
				return nil, false
			}
			v = next
		case *List, *Tuple:
			items := itemsOf(x)
			var i int64 = -1
			switch k := key.(type) {
			case int:
				i = int64(k)
			case int64:
				i = k
			}
			if i < 0 || i >= int64(len(items)) {
				return nil, false
			}
			v = items[i]
		case *Object:
			name, ok := key.(string)
			if !ok {
				return nil, false
			}
			next, ok := x.Attr(name)
			if !ok {
				return nil, false
			}
			v = next
		default:
			return nil, false
		}
	}
	return v, true
}

func itemsOf(v Value) []Value {
	switch x := v.(type) {
	case *List:
		return x.Items
	case *Tuple:
		return x.Items
	}
	return nil
}
