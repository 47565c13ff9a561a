package data

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Random makes a tensor of seeded values: floats are standard normal, 8-bit and
// smaller integers take their whole range, wider ones 0 to 9 (they are often
// indices), bools and strings vary. The name is part of the seed, so that two
// inputs of one model differ.
func Random(d tensor.DType, shape []int, seed uint64, name string) (*tensor.Tensor, error) {
	n, err := tensor.Count(shape)
	if err != nil {
		return nil, err
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	r := rand.New(rand.NewPCG(seed, h.Sum64()))
	if d == tensor.String {
		s := make([]string, n)
		for i := range s {
			s[i] = fmt.Sprintf("s%d", r.IntN(10))
		}
		return tensor.FromStrings(shape, s)
	}
	t := tensor.New(d, shape...)
	switch {
	case d == tensor.C64 || d == tensor.C128:
		part := tensor.F32
		if d == tensor.C128 {
			part = tensor.F64
		}
		v, err := tensor.FromBytes(part, []int{2 * n}, t.Bytes())
		if err != nil {
			return nil, err
		}
		for i := range 2 * n {
			v.SetFloat(i, r.NormFloat64())
		}
	case d.IsFloat():
		for i := range n {
			t.SetFloat(i, r.NormFloat64())
		}
	case d == tensor.Bool:
		for i := range n {
			t.SetInt(i, int64(r.IntN(2)))
		}
	case d.Bits() <= 8:
		for i := range n {
			t.SetInt(i, int64(r.IntN(1<<d.Bits())))
		}
	default:
		for i := range n {
			t.SetInt(i, int64(r.IntN(10)))
		}
	}
	return t, nil
}
