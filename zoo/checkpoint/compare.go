package checkpoint

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/deepspeed"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
)

// CompareOptions says what is compared.
type CompareOptions struct {
	// Weights compares the best weights of each side only, whatever states
	// there are: a training checkpoint with an exported model.
	Weights  bool
	Jobs     int
	Begin    func(bytes int64)
	Progress func(bytes int64)
}

// Difference is one thing in which two checkpoints differ.
type Difference struct {
	Param  string `json:"parameter"`
	State  string `json:"state,omitempty"`
	Change string `json:"change"` // only-in-a, only-in-b, shape, dtype, values, step
	A      string `json:"a,omitempty"`
	B      string `json:"b,omitempty"`
	// Elements is how many differ in bits, MaxAbs by how much at most.
	Elements int64   `json:"elements,omitempty"`
	MaxAbs   float64 `json:"max_abs,omitempty"`
}

// Comparison is the result.
type Comparison struct {
	Params      int          `json:"parameters"`
	Tensors     int          `json:"tensors"`
	Bytes       int64        `json:"bytes"`
	Differences []Difference `json:"differences"`
}

// pair is two tensors to be compared.
type pair struct {
	param, state string
	a, b         *atom.Tensor
}

// Compare compares two checkpoints by parameter, bit for bit, whatever their
// layouts.
func Compare(ctx context.Context, a, b *atom.Checkpoint, o CompareOptions) (*Comparison, error) {
	c := &Comparison{Differences: []Difference{}}
	pairs := c.pairs(a, b, o)
	for _, p := range pairs {
		c.Bytes += p.a.Bytes()
	}
	c.Tensors = len(pairs)
	if o.Begin != nil {
		o.Begin(c.Bytes)
	}
	found := make([]*Difference, len(pairs))
	jobs := o.Jobs
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	errs := make([]error, jobs)
	var wg sync.WaitGroup
	for j := range jobs {
		wg.Go(func() {
			ra, rb := engine.NewReader(a), engine.NewReader(b)
			defer ra.Close()
			defer rb.Close()
			for i := j; i < len(pairs) && errs[j] == nil; i += jobs {
				found[i], errs[j] = comparePair(ctx, pairs[i], ra, rb, o.Progress)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	for _, d := range found {
		if d != nil {
			c.Differences = append(c.Differences, *d)
		}
	}
	return c, nil
}

// pairs lists what both sides have and notes what only one has.
func (c *Comparison) pairs(a, b *atom.Checkpoint, o CompareOptions) []pair {
	var out []pair
	seen := map[*atom.Param]bool{}
	for _, p := range a.Params {
		q := b.Param(p.Name)
		if q == nil {
			c.note(Difference{Param: p.Name, Change: "only-in-a"})
			continue
		}
		seen[q] = true
		c.Params++
		if o.Weights {
			c.pair(&out, p.Name, "weights", p.Weight(), q.Weight())
			continue
		}
		c.states(&out, p, q)
	}
	for _, q := range b.Params {
		if !seen[q] && a.Param(q.Name) == nil {
			c.note(Difference{Param: q.Name, Change: "only-in-b"})
		}
	}
	return out
}

func (c *Comparison) note(d Difference) { c.Differences = append(c.Differences, d) }

// states pairs the states of a parameter. The model's own copy of trained
// weights follows from the master weights, so that it counts only where there
// are none.
func (c *Comparison) states(out *[]pair, p, q *atom.Param) {
	var names []string
	for _, s := range slices.Concat(p.States, q.States) {
		if !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	for _, n := range names {
		x, y := p.State(n), q.State(n)
		if n == atom.Module && (x == nil || y == nil) {
			if p.State(atom.FP32) != nil && q.State(atom.FP32) != nil {
				continue
			}
		}
		c.pair(out, p.Name, n, x, y)
	}
	if s, t := p.Step, q.Step; s != nil && t != nil && !deepspeed.SameScalar(s, t) {
		u, _ := deepspeed.ScalarValue(s)
		v, _ := deepspeed.ScalarValue(t)
		c.note(Difference{Param: p.Name, State: "step", Change: "step", A: fmt.Sprint(u), B: fmt.Sprint(v)})
	}
}

func (c *Comparison) pair(out *[]pair, param, state string, x, y *atom.Tensor) {
	d := Difference{Param: param, State: state}
	switch {
	case x == nil && y == nil:
		return
	case x == nil:
		d.Change = "only-in-b"
	case y == nil:
		d.Change = "only-in-a"
	case !slices.Equal(x.Shape, y.Shape):
		d.Change, d.A, d.B = "shape", fmt.Sprint(x.Shape), fmt.Sprint(y.Shape)
	case x.DType != y.DType:
		d.Change, d.A, d.B = "dtype", x.DType.String(), y.DType.String()
	default:
		*out = append(*out, pair{param, state, x, y})
		return
	}
	c.note(d)
}

// part is how much of two tensors is compared at once.
const part = 1 << 19

func comparePair(ctx context.Context, p pair, ra, rb *engine.Reader, progress func(int64)) (*Difference, error) {
	ca, cb := ra.Open(p.a), rb.Open(p.b)
	x, y := make([]byte, part), make([]byte, part)
	var d *Difference
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := ca.Next(x)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", p.param, p.state, err)
		}
		m, err := cb.Next(y)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", p.param, p.state, err)
		}
		if n != m {
			return nil, fmt.Errorf("BUG: %s, %s: %d and %d bytes", p.param, p.state, n, m)
		}
		if n == 0 {
			return d, nil
		}
		if progress != nil {
			progress(int64(n))
		}
		if bytes.Equal(x[:n], y[:n]) {
			continue
		}
		if d == nil {
			d = &Difference{Param: p.param, State: p.state, Change: "values"}
		}
		d.count(x[:n], y[:n], p.a.DType)
	}
}

// count adds the differing elements.
func (d *Difference) count(x, y []byte, t tensor.DType) {
	size := max(t.Size(), 1)
	a, b := tensor.New(t, len(x)/size), tensor.New(t, len(y)/size)
	copy(a.Bytes(), x)
	copy(b.Bytes(), y)
	for i := range len(x) / size {
		if bytes.Equal(x[i*size:(i+1)*size], y[i*size:(i+1)*size]) {
			continue
		}
		d.Elements++
		if !t.IsNumeric() {
			continue
		}
		if v := math.Abs(value(a, i) - value(b, i)); v > d.MaxAbs && !math.IsInf(v, 0) {
			d.MaxAbs = v
		}
	}
}

func value(t *tensor.Tensor, i int) float64 {
	if t.DType.IsFloat() {
		return t.Float(i)
	}
	return float64(t.Int(i))
}
