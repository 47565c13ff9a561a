package torch

import (
	"errors"
	"fmt"
	"slices"
)

// The limits of Options where they are zero.
const (
	defaultMaxPickle = 256 << 20
	defaultMaxValues = 16 << 20
)

// machine runs the opcodes of one pickle.
type machine struct {
	src    *source
	opt    Options
	stack  []Value
	marks  []int
	memo   map[uint64]Value
	pushes int
	max    int
	proto  int

	classes  map[Class]*Class
	unknown  map[Class]bool
	storages map[string]*Storage
	order    []*Storage

	views map[string]*Storage // legacy: storages that are parts of others
	parts map[*Storage]storagePart
}

func newMachine(opt Options) *machine {
	m := &machine{
		opt: opt, max: opt.MaxValues,
		classes: map[Class]*Class{}, unknown: map[Class]bool{}, storages: map[string]*Storage{},
	}
	if m.max == 0 {
		m.max = defaultMaxValues
	}
	return m
}

// run reads one pickle. Classes and storages are kept from one to the next, as
// torch does; the memo is not.
func (m *machine) run(src *source) (Value, error) {
	m.src, m.stack, m.marks, m.memo, m.proto = src, m.stack[:0], m.marks[:0], map[uint64]Value{}, 0
	for {
		at := src.offset()
		c, err := src.byte()
		if err != nil {
			return nil, err
		}
		if c == '.' {
			break
		}
		op := opcodes[c]
		if op.run == nil {
			return nil, fmt.Errorf("pickle has the opcode 0x%02x at byte %d, which is unknown or refused", c, at)
		}
		if err := op.run(m); err != nil {
			return nil, fmt.Errorf("pickle opcode %s at byte %d: %w", op.name, at, err)
		}
	}
	v, err := m.pop()
	if err != nil {
		return nil, err
	}
	if len(m.stack) > 0 || len(m.marks) > 0 {
		return nil, errors.New("pickle leaves values behind at its end")
	}
	m.memo = nil
	return v, checkGraph(v)
}

var errStack = errors.New("the stack is empty")

func (m *machine) push(v Value) error {
	if m.pushes++; m.pushes > m.max {
		return fmt.Errorf("pickle makes more than %d values", m.max)
	}
	m.stack = append(m.stack, v)
	return nil
}

// floor is the first stack entry above the topmost mark.
func (m *machine) floor() int {
	if len(m.marks) == 0 {
		return 0
	}
	return m.marks[len(m.marks)-1]
}

func (m *machine) pop() (Value, error) {
	n := len(m.stack)
	if n <= m.floor() {
		return nil, errStack
	}
	v := m.stack[n-1]
	m.stack = m.stack[:n-1]
	return v, nil
}

func (m *machine) top() (Value, error) {
	n := len(m.stack)
	if n <= m.floor() {
		return nil, errStack
	}
	return m.stack[n-1], nil
}

// popMark takes all values above the topmost mark, and the mark.
func (m *machine) popMark() ([]Value, error) {
	if len(m.marks) == 0 {
		return nil, errors.New("there is no mark")
	}
	at := m.floor()
	out := slices.Clone(m.stack[at:])
	m.stack = m.stack[:at]
	m.marks = m.marks[:len(m.marks)-1]
	return out, nil
}

// maxMarks bounds nesting by marks.
const maxMarks = 1 << 16

func (m *machine) mark() error {
	if len(m.marks) >= maxMarks {
		return errors.New("marks are nested too deeply")
	}
	m.marks = append(m.marks, len(m.stack))
	return nil
}

func (m *machine) put(i uint64) error {
	v, err := m.top()
	if err != nil {
		return err
	}
	if m.pushes++; m.pushes > m.max {
		return fmt.Errorf("pickle makes more than %d values", m.max)
	}
	m.memo[i] = v
	return nil
}

func (m *machine) get(i uint64) error {
	v, ok := m.memo[i]
	if !ok {
		return fmt.Errorf("nothing is stored under number %d", i)
	}
	return m.push(v)
}

// class names a global after asking the policy.
func (m *machine) class(module, name string) (*Class, error) {
	c := canonical(module, name)
	if p := m.classes[c]; p != nil {
		return p, nil
	}
	if err := admit(c, m.opt.Strict); err != nil {
		return nil, err
	}
	if !known(c) {
		m.unknown[c] = true
	}
	p := &c
	m.classes[c] = p
	return p, nil
}

// unknownClasses is the sorted list of classes outside the allow-list.
func (m *machine) unknownClasses() []Class {
	out := make([]Class, 0, len(m.unknown))
	for c := range m.unknown {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Class) int {
		switch x, y := a.String(), b.String(); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return out
}
