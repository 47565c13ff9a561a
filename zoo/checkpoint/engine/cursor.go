package engine

import (
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
)

// cursor finds where elements of a logical tensor lie.
type cursor struct {
	size   int64 // bytes of an element
	pieces []pieceCursor
	last   int
}

type pieceCursor struct {
	p    *atom.Piece
	walk *geometry.Walker // from the logical tensor to the local array
	lo   int64            // logical range outside of which the piece holds nothing
	hi   int64
	frag int
	// strided arrays
	inner  int64 // elements of the trailing dimensions that lie together
	blocks []int64
	stride []int64
}

func newCursor(size int64, pieces []atom.Piece) *cursor {
	c := &cursor{size: size}
	for i := range pieces {
		p := &pieces[i]
		pc := pieceCursor{p: p, walk: p.View.Invert().Walk()}
		pc.lo, pc.hi = extent(p.View)
		if p.Stride != nil {
			pc.prepareStride()
		}
		c.pieces = append(c.pieces, pc)
	}
	return c
}

// extent is a range of logical positions that holds all parts.
func extent(v geometry.View) (lo, hi int64) {
	if len(v.Parts) == 0 {
		return 0, 0
	}
	if len(v.Global) == 0 {
		return 0, 1
	}
	lo = geometry.Numel(v.Global)
	for _, p := range v.Parts {
		a, b := int64(0), int64(0)
		for d, n := range v.Global {
			a = a*n + p.Global[d]
			b = b*n + p.Global[d] + p.Size[d] - 1
		}
		lo, hi = min(lo, a), max(hi, b+1)
	}
	return lo, hi
}

// prepareStride finds the trailing dimensions that lie together.
func (c *pieceCursor) prepareStride() {
	shape, st := c.p.View.Local, c.p.Stride
	d := len(shape)
	c.inner = 1
	for d > 0 && (shape[d-1] == 1 || st[d-1] == c.inner) {
		d--
		c.inner *= shape[d]
	}
	c.blocks, c.stride = shape[:d], st[:d]
}

// find gives the blob, the byte offset in it and the number of elements of the
// run that begins at logical position g.
func (c *cursor) find(g int64) (blob int32, off, n int64, err error) {
	for k := range c.pieces {
		i := (c.last + k) % len(c.pieces)
		pc := &c.pieces[i]
		if g < pc.lo || g >= pc.hi {
			continue
		}
		local, run := pc.walk.Next(g)
		if local < 0 {
			continue
		}
		c.last = i
		if pc.p.Stride != nil {
			return pc.strided(local, run, c.size)
		}
		return pc.inFrags(local, run, c.size)
	}
	return 0, 0, 0, fmt.Errorf("element %d is in no shard", g)
}

func (c *pieceCursor) inFrags(local, run, size int64) (int32, int64, int64, error) {
	fr := c.p.Frags
	if f := fr[c.frag]; local < f.Start || local >= f.Start+f.Len {
		i, ok := slices.BinarySearchFunc(fr, local, func(f atom.Frag, at int64) int {
			switch {
			case f.Start+f.Len <= at:
				return -1
			case f.Start > at:
				return 1
			}
			return 0
		})
		if !ok {
			return 0, 0, 0, fmt.Errorf("element %d of a shard is in no fragment", local)
		}
		c.frag = i
	}
	f := fr[c.frag]
	in := local - f.Start
	return f.Blob, f.Offset + in*size, min(run, f.Len-in), nil
}

func (c *pieceCursor) strided(local, run, size int64) (int32, int64, int64, error) {
	f := c.p.Frags[0]
	in := local % c.inner
	pos, rest := in, local/c.inner
	for d := len(c.blocks) - 1; d >= 0; d-- {
		pos += rest % c.blocks[d] * c.stride[d]
		rest /= c.blocks[d]
	}
	return f.Blob, f.Offset + pos*size, min(run, c.inner-in), nil
}

// read is a run of bytes of a blob and its place in a buffer.
type read struct {
	blob   int32
	off    int64
	n, dst int
}

// maxReads bounds the memory of a batch when runs are tiny.
const maxReads = 1 << 14

// plan lists the reads for elements [start, start+limit) of a view, as many as
// fit a batch; padding needs none. It gives the number of elements planned.
func (c *cursor) plan(w *geometry.Walker, start, limit int64, reads []read) ([]read, int64, error) {
	done := int64(0)
	for done < limit && len(reads) < maxReads {
		g, n := w.Next(start + done)
		n = min(n, limit-done)
		if g < 0 {
			done += n
			continue
		}
		for n > 0 && len(reads) < maxReads {
			blob, off, k, err := c.find(g)
			if err != nil {
				return nil, 0, err
			}
			k = min(k, n)
			r := read{blob, off, int(k * c.size), int(done * c.size)}
			if m := len(reads) - 1; m >= 0 && reads[m].blob == blob && reads[m].off+int64(reads[m].n) == off && reads[m].dst+reads[m].n == r.dst {
				reads[m].n += r.n
			} else {
				reads = append(reads, r)
			}
			g, n, done = g+k, n-k, done+k
		}
	}
	return reads, done, nil
}
