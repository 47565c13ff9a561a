package engine

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"
	"sync/atomic"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
)

// chunk is the size of the buffers: large enough that system calls do not show,
// small enough that a few of them stay in the cache.
const chunk = 1 << 20

// maxGap is the largest hole between two runs that is read along: below it a
// further system call costs more than the bytes.
const maxGap = 4 << 10

// shared is what all fillers of a run use.
type shared struct {
	ctx     context.Context
	c       *atom.Checkpoint
	handles *handles
	sums    *sums
	read    atomic.Int64 // bytes
	written atomic.Int64
}

// filler produces the bytes of slots. It serves one goroutine.
type filler struct {
	*shared
	buf   []byte // what is written next
	tmp   []byte // elements before a cast
	alt   []byte // another copy, for means and comparisons
	win   []byte // windows of the source
	reads []read
}

func newFiller(s *shared) *filler {
	return &filler{shared: s, buf: make([]byte, chunk)}
}

// scratch gives a window buffer.
func (f *filler) scratch(n int) []byte {
	if cap(f.win) < n {
		f.win = make([]byte, n)
	}
	return f.win[:n]
}

// slot writes one slot of a file, hashes it and gives its CRC-32.
func (f *filler) slot(out io.WriterAt, fill *weights.Fill, plan *weights.Plan, slot int, s *Slot, h hash.Hash) (uint32, error) {
	w := slotWriter{f: f, out: out, base: plan.Slots[slot].Offset, h: h, sums: plan.Sums}
	for i := range s.Spans {
		if err := w.span(&s.Spans[i]); err != nil {
			return 0, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	return w.crc, fill.Written(slot, 0, w.off, w.crc)
}

// slotWriter gathers the bytes of a slot into chunks.
type slotWriter struct {
	f    *filler
	out  io.WriterAt
	base int64 // of the slot in the file
	h    hash.Hash
	sums bool
	crc  uint32
	used int
	off  int64
}

func (w *slotWriter) flush() error {
	if w.used == 0 {
		return nil
	}
	if err := w.f.ctx.Err(); err != nil {
		return err
	}
	b := w.f.buf[:w.used]
	w.h.Write(b)
	if w.sums {
		w.crc = crc32.Update(w.crc, crc32.IEEETable, b)
	}
	// A new file reads as zeros where nothing was written: zeros stay holes.
	if !isZero(b) {
		if _, err := w.out.WriteAt(b, w.base+w.off); err != nil {
			return err
		}
	}
	w.f.written.Add(int64(w.used))
	w.off += int64(w.used)
	w.used = 0
	return nil
}

// isZero reports whether all bytes are zero; it looks no further than the first
// that is not.
func isZero(b []byte) bool {
	for i := 0; i < len(b); i += len(zeros) {
		part := b[i:min(i+len(zeros), len(b))]
		if !bytes.Equal(part, zeros[:len(part)]) {
			return false
		}
	}
	return true
}

var zeros [4096]byte

func (w *slotWriter) span(s *Span) error {
	if s.Tensor != nil {
		return w.tensor(s)
	}
	lit, zeros := s.Literal, s.Zeros
	for len(lit) > 0 || zeros > 0 {
		free := w.f.buf[w.used:]
		if len(free) == 0 {
			if err := w.flush(); err != nil {
				return err
			}
			continue
		}
		n := copy(free, lit)
		lit = lit[n:]
		if n == 0 {
			n = int(min(zeros, int64(len(free))))
			clear(free[:n])
			zeros -= int64(n)
		}
		w.used += n
	}
	return nil
}

func (w *slotWriter) tensor(s *Span) error {
	src := newSource(s.Tensor)
	walk := s.View.Walk()
	from, to := s.Tensor.DType, s.DType
	out := int64(to.Size())
	for pos, end := s.Start, s.Start+s.Len; pos < end; {
		free := int64(len(w.f.buf)-w.used) / out
		if free == 0 {
			if err := w.flush(); err != nil {
				return err
			}
			continue
		}
		n := min(end-pos, free)
		var done int64
		var err error
		if from == to {
			b := w.f.buf[w.used : w.used+int(n*out)]
			done, err = w.f.elements(src, walk, pos, n, b)
		} else {
			in := int64(from.Size())
			if cap(w.f.tmp) < int(n*in) {
				w.f.tmp = make([]byte, int(n*in))
			}
			b := w.f.tmp[:n*in]
			if done, err = w.f.elements(src, walk, pos, n, b); err == nil {
				err = cast(w.f.buf[w.used:w.used+int(done*out)], to, b[:done*in], from)
			}
		}
		if err != nil {
			return err
		}
		pos += done
		w.used += int(done * out)
	}
	return nil
}

// source is where the elements of a tensor come from: one set of pieces, or
// several whose mean is wanted.
type source struct {
	dtype tensor.DType
	sets  []*cursor
	t     *atom.Tensor
	delta *atom.Delta // once it is needed
}

func newSource(t *atom.Tensor) *source {
	size := int64(t.DType.Size())
	s := &source{dtype: t.DType, t: t, sets: []*cursor{newCursor(size, t.Pieces)}}
	if t.Average {
		for i := range t.Copies {
			s.sets = append(s.sets, newCursor(size, t.Copies[i:i+1]))
		}
	}
	return s
}

// elements reads elements [pos, pos+n) of a view into b, or the first of them
// when runs are tiny; padding is zero.
func (f *filler) elements(s *source, walk *geometry.Walker, pos, n int64, b []byte) (int64, error) {
	done, err := f.gather(s.sets[0], walk, pos, n, b)
	if err == nil && s.t.Delta != nil {
		err = s.update(walk, pos, done, b)
	}
	if err != nil || len(s.sets) == 1 {
		return done, err
	}
	size := s.sets[0].size
	b = b[:done*size]
	acc, err := newMean(s.dtype, b)
	if err != nil {
		return 0, err
	}
	for _, c := range s.sets[1:] {
		if cap(f.alt) < len(b) {
			f.alt = make([]byte, len(b))
		}
		alt := f.alt[:len(b)]
		for at := int64(0); at < done; {
			k, err := f.gather(c, walk, pos+at, done-at, alt[at*size:])
			if err != nil {
				return 0, err
			}
			at += k
		}
		acc.add(alt)
	}
	acc.finish(len(s.sets), b)
	return done, nil
}

// update adds the low-rank update to elements [pos, pos+n) of a view.
func (s *source) update(walk *geometry.Walker, pos, n int64, b []byte) error {
	if s.delta == nil {
		var err error
		if s.delta, err = s.t.Delta(); err != nil {
			return err
		}
	}
	size := int64(s.dtype.Size())
	x := tensor.New(s.dtype, int(n))
	copy(x.Bytes(), b[:n*size])
	for at := int64(0); at < n; {
		g, k := walk.Next(pos + at)
		k = min(k, n-at)
		if g >= 0 {
			for i := range k {
				x.SetFloat(int(at+i), x.Float(int(at+i))+s.delta.At(g+i))
			}
		}
		at += k
	}
	copy(b, x.Bytes())
	return nil
}

func (f *filler) gather(c *cursor, walk *geometry.Walker, pos, n int64, b []byte) (int64, error) {
	reads, done, err := c.plan(walk, pos, n, f.reads[:0])
	if err != nil {
		return 0, err
	}
	f.reads = reads
	total, sorted := 0, true
	for i, r := range reads {
		total += r.n
		if i > 0 && order(reads[i-1], r) > 0 {
			sorted = false
		}
	}
	if total < int(done*c.size) {
		clear(b[:done*c.size])
	}
	if !sorted {
		slices.SortFunc(reads, order)
	}
	for i := 0; i < len(reads); {
		j, err := f.window(reads[i:], b)
		if err != nil {
			return 0, err
		}
		i += j
	}
	return done, nil
}

func order(a, b read) int {
	if a.blob != b.blob {
		return cmp.Compare(a.blob, b.blob)
	}
	return cmp.Compare(a.off, b.off)
}

// window does the first of the sorted reads together with those that lie close
// behind it, and tells how many.
func (f *filler) window(rs []read, b []byte) (int, error) {
	first := rs[0]
	end, k := first.off+int64(first.n), 1
	for k < len(rs) {
		r := rs[k]
		stop := max(end, r.off+int64(r.n))
		if r.blob != first.blob || r.off > end+maxGap || stop-first.off > chunk {
			break
		}
		end = stop
		k++
	}
	if k == 1 {
		return 1, f.readBlob(first.blob, first.off, b[first.dst:first.dst+first.n], true)
	}
	w := f.scratch(int(end - first.off))
	if err := f.readBlob(first.blob, first.off, w, true); err != nil {
		return 0, err
	}
	for _, r := range rs[:k] {
		at := r.off - first.off
		copy(b[r.dst:r.dst+r.n], w[at:])
	}
	return k, nil
}

// readBlob reads bytes of a blob.
func (f *filler) readBlob(blob int32, off int64, b []byte, note bool) error {
	x := &f.c.Blobs[blob]
	f.read.Add(int64(len(b)))
	if x.Data != nil {
		return readFull(x.Data, x.File, b, off)
	}
	h, err := f.handles.acquire(x.File)
	if err != nil {
		return err
	}
	err = readFull(h, x.File, b, x.Offset+off)
	f.handles.release(h)
	if err == nil && note {
		f.sums.note(blob, off, b)
	}
	return err
}
