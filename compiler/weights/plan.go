package weights

import (
	"fmt"
	"io"
	"slices"
	"sync"
)

// Slot is a part of a planned file that holds tensor data.
type Slot struct {
	Name   string
	Offset int64 // in the file
	Bytes  int64
}

// Part is a part of a planned file that holds anything but tensor data.
type Part struct {
	Offset int64
	Data   []byte
}

// Plan is the layout of a file whose bytes are not there yet. All places are
// known before the first byte is read, so each byte is written once, in any
// order and from several goroutines, and no file is held in memory.
type Plan struct {
	Size  int64
	Slots []Slot
	// Sums tells that the format stores the CRC-32 of each slot.
	Sums bool
	// Parts makes the other bytes of the file. sums holds the CRC-32 of each
	// slot if Sums is set; Parts is called once all slots are written.
	Parts func(sums []uint32) ([]Part, error)
}

// Check verifies that the slots lie inside the file and do not overlap.
func (p *Plan) Check() error {
	order := make([]int, len(p.Slots))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch x, y := p.Slots[a].Offset, p.Slots[b].Offset; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	end := int64(0)
	for _, i := range order {
		s := p.Slots[i]
		if s.Bytes == 0 {
			continue
		}
		if s.Offset < end || s.Bytes < 0 || s.Offset+s.Bytes > p.Size {
			return fmt.Errorf("slot %s overlaps another one or ends after the file", s.Name)
		}
		end = s.Offset + s.Bytes
	}
	return nil
}

// Begin starts to fill a planned file. The file should read as zeros where
// nothing was written (Store.Create gives such a file).
func (p *Plan) Begin(w io.WriterAt) *Fill {
	return &Fill{plan: p, w: w, done: make([][]span, len(p.Slots))}
}

// span is a range of a slot that was written, with its CRC-32.
type span struct {
	lo, hi int64
	sum    uint32
}

// Fill writes the slots of one planned file. Its methods may be called from
// several goroutines.
type Fill struct {
	plan *Plan
	w    io.WriterAt
	mu   sync.Mutex
	done [][]span // per slot: sorted, no two touch
}

// WriteAt writes bytes of a slot, off counted from the start of the slot. Each
// byte of a slot must be written exactly once.
func (f *Fill) WriteAt(slot int, b []byte, off int64) error {
	if len(b) == 0 {
		return nil
	}
	var sum uint32
	if f.plan.Sums {
		sum = CRC(b)
	}
	if err := f.note(slot, off, int64(len(b)), sum); err != nil {
		return err
	}
	if _, err := f.w.WriteAt(b, f.plan.Slots[slot].Offset+off); err != nil {
		return fmt.Errorf("write %s: %w", f.plan.Slots[slot].Name, err)
	}
	return nil
}

// Zero says that n bytes of a slot are zero; nothing is written for them.
func (f *Fill) Zero(slot int, off, n int64) error {
	if n == 0 {
		return nil
	}
	var sum uint32
	if f.plan.Sums {
		sum = ZeroCRC(n)
	}
	return f.note(slot, off, n, sum)
}

// Written says that n bytes of a slot were put into the file by other means,
// such as a copy inside the kernel; sum is their CRC-32 where Plan.Sums is set.
func (f *Fill) Written(slot int, off, n int64, sum uint32) error {
	if n == 0 {
		return nil
	}
	return f.note(slot, off, n, sum)
}

func (f *Fill) note(slot int, off, n int64, sum uint32) error {
	s := f.plan.Slots[slot]
	if off < 0 || n < 0 || off > s.Bytes-n {
		return fmt.Errorf("bytes %d to %d are outside %s, which has %d", off, off+n, s.Name, s.Bytes)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.done[slot]
	i, _ := slices.BinarySearchFunc(d, off, func(x span, v int64) int {
		if x.lo < v {
			return -1
		}
		return 1
	})
	if i > 0 && d[i-1].hi > off || i < len(d) && d[i].lo < off+n {
		return fmt.Errorf("bytes %d to %d of %s are written twice", off, off+n, s.Name)
	}
	left := i > 0 && d[i-1].hi == off
	right := i < len(d) && d[i].lo == off+n
	x := span{off, off + n, sum}
	if left {
		x = f.join(d[i-1], x)
	}
	if right {
		x = f.join(x, d[i])
	}
	switch {
	case left && right:
		d[i-1] = x
		d = slices.Delete(d, i, i+1)
	case left:
		d[i-1] = x
	case right:
		d[i] = x
	default:
		d = slices.Insert(d, i, x)
	}
	f.done[slot] = d
	return nil
}

func (f *Fill) join(a, b span) span {
	c := span{lo: a.lo, hi: b.hi}
	if f.plan.Sums {
		c.sum = CombineCRC(a.sum, b.sum, b.hi-b.lo)
	}
	return c
}

// Close checks that every slot is complete and writes the rest of the file.
func (f *Fill) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	sums := make([]uint32, len(f.plan.Slots))
	for i, s := range f.plan.Slots {
		d := f.done[i]
		switch {
		case s.Bytes == 0:
		case len(d) == 1 && d[0].lo == 0 && d[0].hi == s.Bytes:
			sums[i] = d[0].sum
		case len(d) == 0:
			return fmt.Errorf("nothing was written to %s", s.Name)
		case d[0].lo > 0:
			return fmt.Errorf("bytes 0 to %d of %s were not written", d[0].lo, s.Name)
		case len(d) > 1:
			return fmt.Errorf("bytes %d to %d of %s were not written", d[0].hi, d[1].lo, s.Name)
		default:
			return fmt.Errorf("bytes %d to %d of %s were not written", d[0].hi, s.Bytes, s.Name)
		}
	}
	if f.plan.Parts == nil {
		return nil
	}
	parts, err := f.plan.Parts(sums)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := f.w.WriteAt(p.Data, p.Offset); err != nil {
			return fmt.Errorf("write %d bytes at %d: %w", len(p.Data), p.Offset, err)
		}
	}
	return nil
}

// chunk is the size of one read and write: large enough that system calls do
// not show, small enough to stay in the second-level cache.
const chunk = 1 << 18

// Write fills a whole file in order. source gives the packed bytes of a slot.
func (p *Plan) Write(w io.WriterAt, source func(slot int) (io.ReaderAt, error)) error {
	f := p.Begin(w)
	buf := make([]byte, chunk)
	for i, s := range p.Slots {
		if s.Bytes == 0 {
			continue
		}
		r, err := source(i)
		if err != nil {
			return err
		}
		if r == nil {
			return fmt.Errorf("%s has no data", s.Name)
		}
		if err := f.Copy(i, 0, r, 0, s.Bytes, buf); err != nil {
			return err
		}
	}
	return f.Close()
}

// Copy moves n bytes from position from of r to position off of a slot. buf is
// the memory to use; an empty one is replaced.
func (f *Fill) Copy(slot int, off int64, r io.ReaderAt, from, n int64, buf []byte) error {
	if len(buf) == 0 {
		buf = make([]byte, min(n, chunk))
	}
	for n > 0 {
		b := buf[:min(n, int64(len(buf)))]
		if err := ReadFull(r, b, from); err != nil {
			return fmt.Errorf("read the data of %s: %w", f.plan.Slots[slot].Name, err)
		}
		if err := f.WriteAt(slot, b, off); err != nil {
			return err
		}
		k := int64(len(b))
		off, from, n = off+k, from+k, n-k
	}
	return nil
}
