package torch

import (
	"errors"
	"fmt"
	"math"
)

const (
	// maxDepth bounds the nesting of values, so that walking them needs little
	// stack. Real checkpoints nest about ten levels.
	maxDepth = 500
	// maxExpanded bounds how many values a walk along all paths visits. Shared
	// lists of shared lists would make it exponential.
	maxExpanded = 1 << 28
)

// children calls fn for every value directly inside v.
func children(v Value, fn func(Value) error) error {
	each := func(vs ...Value) error {
		for _, x := range vs {
			if err := fn(x); err != nil {
				return err
			}
		}
		return nil
	}
	switch x := v.(type) {
	case *List:
		return each(x.Items...)
	case *Tuple:
		return each(x.Items...)
	case *Set:
		return each(x.Items...)
	case *Dict:
		for _, p := range x.Pairs() {
			if err := each(p.Key, p.Value); err != nil {
				return err
			}
		}
		return each(x.Attrs)
	case *Object:
		if err := fn(x.Args); err != nil {
			return err
		}
		if err := each(x.Items...); err != nil {
			return err
		}
		for _, p := range x.Pairs {
			if err := each(p.Key, p.Value); err != nil {
				return err
			}
		}
		if x.Kwargs != nil {
			if err := fn(x.Kwargs); err != nil {
				return err
			}
		}
		return each(x.State)
	case *Tensor:
		if err := each(x.Hooks, x.Metadata); err != nil {
			return err
		}
		if x.Param != nil {
			if err := each(x.Param.Hooks, x.Param.State); err != nil {
				return err
			}
		}
		if x.Wrap != nil {
			return each(x.Wrap.State)
		}
	}
	return nil
}

// composite reports values that hold others. Nil pointers are no values.
func composite(v Value) bool {
	switch x := v.(type) {
	case *List:
		return x != nil
	case *Tuple:
		return x != nil
	case *Dict:
		return x != nil
	case *Set:
		return x != nil
	case *Object:
		return x != nil
	case *Tensor:
		return x != nil
	}
	return false
}

// measure is what a walk learns about a value.
type measure struct {
	open   bool  // being visited
	values int64 // number of values along all paths
	height int   // levels below
}

// checkGraph refuses values that contain themselves, nest too deeply or expand
// too far.
func checkGraph(root Value) error {
	seen := map[Value]measure{}
	m, err := measureValue(seen, root, 0)
	if err == nil && m.values > maxExpanded {
		err = errors.New("pickle shares values so often that they expand without bound")
	}
	return err
}

func measureValue(seen map[Value]measure, v Value, depth int) (measure, error) {
	if !composite(v) {
		return measure{values: 1}, nil
	}
	m, ok := seen[v]
	if ok && m.open {
		return m, fmt.Errorf("pickle holds %s that contains itself", kindOf(v))
	}
	if !ok {
		if depth > maxDepth {
			return m, errDepth
		}
		seen[v] = measure{open: true}
		m = measure{values: 1}
		err := children(v, func(c Value) error {
			n, err := measureValue(seen, c, depth+1)
			m.values = min(m.values+n.values, math.MaxInt64/4)
			m.height = max(m.height, n.height+1)
			return err
		})
		if err != nil {
			return m, err
		}
		seen[v] = m
	}
	// A shared value may hang deeper here than where it was first met.
	if depth+m.height > maxDepth {
		return m, errDepth
	}
	return m, nil
}

var errDepth = fmt.Errorf("pickle nests more than %d levels", maxDepth)
