package torch

import (
	"errors"
	"fmt"
)

func opList(m *machine) error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	return m.push(&List{items})
}

func opTuple(m *machine) error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	return m.push(&Tuple{items})
}

func tuple(n int) func(*machine) error {
	return func(m *machine) error {
		at := len(m.stack) - n
		if at < m.floor() {
			return errStack
		}
		t := &Tuple{append([]Value(nil), m.stack[at:]...)}
		m.stack = m.stack[:at]
		return m.push(t)
	}
}

func opAppend(m *machine) error {
	v, err := m.pop()
	if err != nil {
		return err
	}
	return m.extend([]Value{v})
}

func opAppends(m *machine) error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	return m.extend(items)
}

func (m *machine) extend(items []Value) error {
	v, err := m.top()
	if err != nil {
		return err
	}
	switch c := v.(type) {
	case *List:
		c.Items = append(c.Items, items...)
	case *Object:
		if c.HasState {
			return fmt.Errorf("items follow the state of a %s", c.Class)
		}
		c.Items = append(c.Items, items...)
	default:
		return fmt.Errorf("%s has no items", kindOf(v))
	}
	return nil
}

func opDict(m *machine) error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	d := &Dict{}
	if err := setItems(d, items); err != nil {
		return err
	}
	return m.push(d)
}

func opSetItem(m *machine) error {
	v, err := m.pop()
	if err != nil {
		return err
	}
	k, err := m.pop()
	if err != nil {
		return err
	}
	top, err := m.top()
	if err != nil {
		return err
	}
	return setItems(top, []Value{k, v})
}

func opSetItems(m *machine) error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	top, err := m.top()
	if err != nil {
		return err
	}
	return setItems(top, items)
}

// setItems puts keys and values in turn into a mapping.
func setItems(into Value, items []Value) error {
	if len(items)%2 != 0 {
		return errors.New("a key has no value")
	}
	for i := 0; i < len(items); i += 2 {
		if !hashable(items[i]) {
			return fmt.Errorf("%s is not hashable and cannot be a key", kindOf(items[i]))
		}
		switch c := into.(type) {
		case *Dict:
			c.Set(items[i], items[i+1])
		case *Object:
			if c.HasState {
				return fmt.Errorf("entries follow the state of a %s", c.Class)
			}
			c.Pairs = append(c.Pairs, Pair{items[i], items[i+1]})
		default:
			return fmt.Errorf("%s has no entries", kindOf(into))
		}
	}
	return nil
}

func opAddItems(m *machine) error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	top, err := m.top()
	if err != nil {
		return err
	}
	s, ok := top.(*Set)
	if !ok || s.Frozen {
		return fmt.Errorf("items cannot be added to %s", kindOf(top))
	}
	return s.add(items)
}

func opFrozenSet(m *machine) error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	s := &Set{Frozen: true}
	if err := s.add(items); err != nil {
		return err
	}
	return m.push(s)
}

func (s *Set) add(items []Value) error {
	for _, x := range items {
		if !hashable(x) {
			return fmt.Errorf("%s is not hashable and cannot be in a set", kindOf(x))
		}
	}
	s.Items = append(s.Items, items...)
	return nil
}

// kindOf names a value's kind in messages, in Python's words.
func kindOf(v Value) string {
	switch x := v.(type) {
	case nil:
		return "None"
	case bool:
		return "a bool"
	case string:
		return "a str"
	case Bytes:
		return "bytes"
	case float64:
		return "a float"
	case complex128:
		return "a complex"
	case Size:
		return "a torch.Size"
	case *List:
		return "a list"
	case *Tuple:
		return "a tuple"
	case *Dict:
		return "a dict"
	case *Set:
		return "a set"
	case *Tensor:
		return "a tensor"
	case *Storage:
		return "a storage"
	case *Class:
		return "the class " + x.String()
	case *Object:
		return "a " + x.Class.String()
	}
	return "an int"
}
