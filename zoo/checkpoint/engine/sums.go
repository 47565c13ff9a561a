package engine

import (
	"slices"
	"sync"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
)

// sums compares the CRC-32 of source storages with what is read anyway, so that
// checking costs no second read.
type sums struct {
	blobs []atom.Blob
	mu    []sync.Mutex // striped by blob
	parts [][]crcSpan
	lost  []bool // too fragmented: read again at the end
}

type crcSpan struct {
	lo, hi int64
	sum    uint32
}

// maxSpans bounds the memory per storage.
const maxSpans = 1 << 12

const stripes = 64

func newSums(blobs []atom.Blob) *sums {
	return &sums{
		blobs: blobs, mu: make([]sync.Mutex, stripes),
		parts: make([][]crcSpan, len(blobs)), lost: make([]bool, len(blobs)),
	}
}

// note enters bytes that were read.
func (s *sums) note(blob int32, off int64, b []byte) {
	if int(blob) >= len(s.blobs) || !s.blobs[blob].HasSum || len(b) == 0 {
		return
	}
	m := &s.mu[blob%stripes]
	m.Lock()
	skip := s.lost[blob] || s.double(blob, off, int64(len(b)))
	m.Unlock()
	if skip {
		return
	}
	x := crcSpan{off, off + int64(len(b)), weights.CRC(b)}
	m.Lock()
	defer m.Unlock()
	if !s.lost[blob] && !s.double(blob, off, int64(len(b))) {
		s.insert(blob, x)
	}
}

// double reports whether a range was read before; a range that was read in
// part is lost for the sum and settled by reading again.
func (s *sums) double(blob int32, off, n int64) bool {
	d := s.parts[blob]
	i := search(d, off)
	for _, k := range []int{i - 1, i} {
		if k < 0 || k >= len(d) || d[k].hi <= off || d[k].lo >= off+n {
			continue
		}
		if d[k].lo > off || d[k].hi < off+n {
			s.lost[blob], s.parts[blob] = true, nil
		}
		return true
	}
	return false
}

func search(d []crcSpan, off int64) int {
	i, _ := slices.BinarySearchFunc(d, off, func(x crcSpan, v int64) int {
		if x.lo < v {
			return -1
		}
		return 1
	})
	return i
}

func (s *sums) insert(blob int32, x crcSpan) {
	d := s.parts[blob]
	i := search(d, x.lo)
	if i > 0 && d[i-1].hi == x.lo {
		i--
		x = crcSpan{d[i].lo, x.hi, weights.CombineCRC(d[i].sum, x.sum, x.hi-x.lo)}
		d = slices.Delete(d, i, i+1)
	}
	if i < len(d) && d[i].lo == x.hi {
		x = crcSpan{x.lo, d[i].hi, weights.CombineCRC(x.sum, d[i].sum, d[i].hi-d[i].lo)}
		d = slices.Delete(d, i, i+1)
	}
	d = slices.Insert(d, i, x)
	if len(d) > maxSpans {
		d, s.lost[blob] = nil, true
	}
	s.parts[blob] = d
}

// finish reads what is still unknown of a storage and compares. Storages of
// which nothing was used are not checked.
func (s *sums) finish(blob int32, f *filler) error {
	b := s.blobs[blob]
	if !b.HasSum || len(s.parts[blob]) == 0 && !s.lost[blob] {
		return nil
	}
	if s.lost[blob] {
		s.lost[blob], s.parts[blob] = false, nil
	}
	buf := f.scratch(chunk)
	for {
		d := s.parts[blob]
		at := int64(0)
		if len(d) > 0 && d[0].lo == 0 {
			at = d[0].hi
		}
		if at >= b.Bytes {
			break
		}
		end := min(b.Bytes, at+int64(len(buf)))
		for _, x := range d {
			if x.lo > at {
				end = min(end, x.lo)
				break
			}
		}
		part := buf[:end-at]
		if err := f.readBlob(blob, at, part, false); err != nil {
			return err
		}
		s.insert(blob, crcSpan{at, end, weights.CRC(part)})
	}
	if got := s.parts[blob]; len(got) == 1 && got[0].sum != b.Sum {
		return fault.New(fault.BadModel, "the data at byte %d has CRC-32 %08x, the file says %08x: it is damaged", b.Offset, got[0].sum, b.Sum).InFile(b.File)
	}
	return nil
}
