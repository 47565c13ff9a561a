package deepspeed

import (
	"fmt"
	"io"

	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

func sub(d *torch.Dict, key string) *torch.Dict {
	v, _ := d.Get(key)
	x, _ := v.(*torch.Dict)
	return x
}

func items(d *torch.Dict, key string) []torch.Value {
	v, _ := d.Get(key)
	x, err := spec.Items(v)
	if err != nil {
		return nil
	}
	return x
}

func text(d *torch.Dict, key string) string {
	v, _ := d.Get(key)
	s, _ := v.(string)
	return s
}

func integer(v torch.Value) (int64, bool) {
	switch x := v.(type) {
	case int64:
		return x, true
	case int:
		return int64(x), true
	case bool:
		if x {
			return 1, true
		}
		return 0, true
	case float64:
		return int64(x), true
	}
	return 0, false
}

func number(d *torch.Dict, key string) (int64, bool) {
	v, ok := d.Get(key)
	if !ok {
		return 0, false
	}
	return integer(v)
}

// shapes reads one entry of param_shapes.
func shapes(v torch.Value) (names []string, out [][]int64, err error) {
	d, ok := v.(*torch.Dict)
	if !ok {
		return nil, nil, fmt.Errorf("an entry of param_shapes is %T, not a dict", v)
	}
	for _, p := range d.Pairs() {
		name, ok := p.Key.(string)
		if !ok {
			return nil, nil, fmt.Errorf("param_shapes has a key %v that is no name", p.Key)
		}
		shape, err := shape(p.Value)
		if err != nil {
			return nil, nil, fmt.Errorf("shape of %s: %w", name, err)
		}
		names = append(names, name)
		out = append(out, shape)
	}
	return names, out, nil
}

func shape(v torch.Value) ([]int64, error) {
	s, ok := v.(torch.Size)
	dims := atom.Dims(s)
	if !ok {
		var err error
		if dims, err = spec.Integers(v); err != nil {
			return nil, err
		}
	}
	n := int64(1)
	for _, d := range dims {
		if d < 0 || d > 0 && n > maxElements/d {
			return nil, fmt.Errorf("shape %v is not possible", dims)
		}
		n *= max(d, 1)
	}
	return dims, nil
}

// maxElements is more than any parameter has, and far from overflow.
const maxElements = 1 << 48

// stage reads zero_stage: an int, or a member of ZeroStageEnum that was pickled
// by value (class, int) or by name (getattr).
func stage(v torch.Value) (int, bool) {
	if n, ok := integer(v); ok {
		return int(n), true
	}
	o, ok := v.(*torch.Object)
	if !ok || o.Args == nil {
		return 0, false
	}
	names := map[string]int{"disabled": 0, "optimizer_states": 1, "gradients": 2, "weights": 3}
	for _, a := range o.Args.Items {
		if s, isText := a.(string); isText {
			n, known := names[s]
			return n, known
		}
		if n, isInt := integer(a); isInt {
			return int(n), true
		}
	}
	return 0, false
}

// scalar gives a value that DeepSpeed stores as step: an int, a float or a
// tensor of one element. Its bytes are in memory.
func scalar(v torch.Value) (torch.Value, bool) {
	switch x := v.(type) {
	case int64, float64:
		return x, true
	case int:
		return int64(x), true
	case *torch.Tensor:
		n := 1
		for _, d := range x.Shape {
			n *= d
		}
		return x, n == 1
	}
	return nil, false
}

// SameScalar reports whether two steps have the same value.
func SameScalar(a, b torch.Value) bool {
	x, okX := ScalarValue(a)
	y, okY := ScalarValue(b)
	return okX == okY && x == y
}

// ScalarValue gives a step as a number.
func ScalarValue(v torch.Value) (float64, bool) {
	switch x := v.(type) {
	case int64:
		return float64(x), true
	case float64:
		return x, true
	case *torch.Tensor:
		t, err := x.Load()
		if err != nil && err != io.EOF || t.Len() != 1 {
			return 0, false
		}
		if t.DType.IsFloat() {
			return t.Float(0), true
		}
		return float64(t.Int(0)), true
	}
	return 0, false
}
