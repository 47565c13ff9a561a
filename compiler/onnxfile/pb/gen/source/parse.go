// Package source turns the description of ONNX's messages into Go source.
//
// It must not know files: text in, text out, so that a test can compare.
package source

import (
	"fmt"
	"strconv"
	"strings"
)

type enum struct {
	name   string
	values []enumValue
}

type enumValue struct {
	name   string
	number int
}

type label int

const (
	optional label = iota
	repeated
	packed
)

type field struct {
	number int
	label  label
	typ    string
	name   string // as in onnx.proto
}

type message struct {
	name   string
	fields []field
}

type description struct {
	enums    []enum
	messages []message
}

func (d *description) isEnum(name string) bool {
	for _, e := range d.enums {
		if e.name == name {
			return true
		}
	}
	return false
}

func (d *description) isMessage(name string) bool {
	for _, m := range d.messages {
		if m.name == name {
			return true
		}
	}
	return false
}

var labels = map[string]label{"optional": optional, "repeated": repeated, "packed": packed}

func parse(text string) (*description, error) {
	d := &description{}
	inEnum := false
	for i, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		var err error
		switch {
		case len(f) == 0 || f[0] == "#":
		case f[0] == "enum" && len(f) == 2:
			d.enums, inEnum = append(d.enums, enum{name: f[1]}), true
		case f[0] == "message" && len(f) == 2:
			d.messages, inEnum = append(d.messages, message{name: f[1]}), false
		case inEnum && len(f) == 2:
			err = d.enumLine(f)
		case len(d.messages) > 0 && len(f) == 4:
			err = d.fieldLine(f)
		default:
			err = fmt.Errorf("cannot read %q", line)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return d, d.check()
}

func (d *description) enumLine(f []string) error {
	n, err := strconv.Atoi(f[1])
	e := &d.enums[len(d.enums)-1]
	e.values = append(e.values, enumValue{f[0], n})
	return err
}

func (d *description) fieldLine(f []string) error {
	n, err := strconv.Atoi(f[0])
	if err != nil || n < 1 || n > 63 {
		return fmt.Errorf("field number %s is not in 1..63", f[0])
	}
	l, ok := labels[f[1]]
	if !ok {
		return fmt.Errorf("unknown label %q", f[1])
	}
	m := &d.messages[len(d.messages)-1]
	if k := len(m.fields); k > 0 && m.fields[k-1].number >= n {
		return fmt.Errorf("field %s is out of order", f[3])
	}
	m.fields = append(m.fields, field{n, l, f[2], f[3]})
	return nil
}

func (d *description) check() error {
	for _, m := range d.messages {
		for _, f := range m.fields {
			if _, ok := scalars[f.typ]; !ok && f.typ != "string" && f.typ != "bytes" && !d.isEnum(f.typ) && !d.isMessage(f.typ) {
				return fmt.Errorf("message %s: unknown type %q", m.name, f.typ)
			}
		}
	}
	return nil
}
