package engine

import (
	"bytes"
	"fmt"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
)

// checkCopies compares every copy of a tensor with its pieces.
func (f *filler) checkCopies(name string, t *atom.Tensor) error {
	if t.Average {
		return nil
	}
	size := int64(t.DType.Size())
	main := newCursor(size, t.Pieces)
	for i := range t.Copies {
		p := &t.Copies[i]
		own := newCursor(size, t.Copies[i:i+1])
		walk := p.View.Walk()
		for pos, n := int64(0), numel(p.View.Local); pos < n; {
			k := min(n-pos, int64(chunk)/size)
			k, err := f.gather(main, walk, pos, k, f.buf)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if cap(f.alt) < chunk {
				f.alt = make([]byte, chunk)
			}
			for at := int64(0); at < k; {
				d, err := f.gather(own, walk, pos+at, k-at, f.alt[at*size:chunk])
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				at += d
			}
			if a, b := f.buf[:k*size], f.alt[:k*size]; !bytes.Equal(a, b) {
				return fault.New(fault.BadModel, "%s: copies that should be equal differ from element %d on", name, pos+firstDifference(a, b)/size).
					InFile(f.c.Blobs[p.Frags[0].Blob].File).
					Hint("if the replicas have drifted, declare the parameter as averaged in --spec, or take the first with --replicas first")
			}
			pos += k
		}
	}
	return nil
}

func numel(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}

func firstDifference(a, b []byte) int64 {
	for i := range a {
		if a[i] != b[i] {
			return int64(i)
		}
	}
	return int64(len(a))
}
