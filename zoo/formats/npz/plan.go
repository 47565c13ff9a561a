package npz

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// NewNPY lays out an .npy file of one array.
func NewNPY(t weights.Tensor) (*weights.Plan, error) {
	head, err := header(t)
	if err != nil {
		return nil, err
	}
	n := int64(len(head))
	return &weights.Plan{
		Size:  n + t.Bytes(),
		Slots: []weights.Slot{{Name: t.Name, Offset: n, Bytes: t.Bytes()}},
		Parts: func([]uint32) ([]weights.Part, error) { return []weights.Part{{Data: head}}, nil },
	}, nil
}

// entry is an array in the zip to be written.
type entry struct {
	name   string
	header int64
	head   []byte // of the array
	size   int64  // head and data
	data   int64  // bytes of data
}

// NewPlan lays out an .npz file: slot i is tensors[i], of which Name, DType and
// Shape are used.
func NewPlan(tensors []weights.Tensor) (*weights.Plan, error) {
	p := &weights.Plan{Sums: true}
	var entries []entry
	seen := map[string]bool{}
	pos := int64(0)
	for _, t := range tensors {
		e := entry{name: t.Name + ".npy", header: pos, data: t.Bytes()}
		if err := weights.CheckName(e.name); err != nil || len(e.name) > math.MaxUint16 {
			return nil, fmt.Errorf("%q cannot be the name of an array in .npz", t.Name)
		}
		if seen[e.name] {
			return nil, fmt.Errorf("array %q is there twice", t.Name)
		}
		seen[e.name] = true
		var err error
		if e.head, err = header(t); err != nil {
			return nil, err
		}
		e.size = int64(len(e.head)) + e.data
		at := pos + int64(len(e.local(0))+len(e.head))
		p.Slots = append(p.Slots, weights.Slot{Name: t.Name, Offset: at, Bytes: e.data})
		entries = append(entries, e)
		pos = at + e.data
	}
	p.Size = pos + int64(len(directory(entries, make([]uint32, len(entries)), pos)))
	p.Parts = func(sums []uint32) ([]weights.Part, error) {
		all := make([]uint32, len(entries))
		var out []weights.Part
		for i, e := range entries {
			all[i] = weights.CombineCRC(weights.CRC(e.head), sums[i], e.data)
			out = append(out, weights.Part{Offset: e.header, Data: append(e.local(all[i]), e.head...)})
		}
		return append(out, weights.Part{Offset: pos, Data: directory(entries, all, pos)}), nil
	}
	return p, nil
}

const max32 = math.MaxUint32

// local is the local header. NumPy forces zip64 there, too, since it does not
// know sizes ahead; we do, but keep one form for all.
func (e *entry) local(sum uint32) []byte {
	le := binary.LittleEndian
	b := append([]byte("PK\x03\x04"), 45, 0, 0, 8, 0, 0, 0, 0, 0x21, 0) // UTF-8, stored, 1980-01-01
	b = le.AppendUint32(b, sum)
	b = le.AppendUint32(b, max32)
	b = le.AppendUint32(b, max32)
	b = le.AppendUint16(b, uint16(len(e.name)))
	b = le.AppendUint16(b, 20)
	b = append(b, e.name...)
	b = append(b, 1, 0, 16, 0)
	b = le.AppendUint64(b, uint64(e.size))
	return le.AppendUint64(b, uint64(e.size))
}

// directory is the central directory and what ends the zip.
func directory(entries []entry, sums []uint32, at int64) []byte {
	le := binary.LittleEndian
	var b []byte
	for i, e := range entries {
		var extra []byte
		size, header := uint32(min(e.size, max32)), uint32(min(e.header, max32))
		if e.size >= max32 {
			extra = le.AppendUint64(extra, uint64(e.size))
			extra = le.AppendUint64(extra, uint64(e.size))
		}
		if e.header >= max32 {
			extra = le.AppendUint64(extra, uint64(e.header))
		}
		if n := len(extra); n > 0 {
			extra = append([]byte{1, 0, byte(n), 0}, extra...)
		}
		b = append(b, "PK\x01\x02"...)
		b = append(b, 45, 0, 45, 0, 0, 8, 0, 0, 0, 0, 0x21, 0)
		b = le.AppendUint32(b, sums[i])
		b = le.AppendUint32(b, size)
		b = le.AppendUint32(b, size)
		b = le.AppendUint16(b, uint16(len(e.name)))
		b = le.AppendUint16(b, uint16(len(extra)))
		b = append(b, make([]byte, 10)...)
		b = le.AppendUint32(b, header)
		b = append(b, e.name...)
		b = append(b, extra...)
	}
	n, length := uint64(len(entries)), uint64(len(b))
	if n >= math.MaxUint16 || length >= max32 || at >= max32 {
		end := uint64(at) + length
		b = append(b, "PK\x06\x06"...)
		b = le.AppendUint64(b, 44)
		b = append(b, 45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		for _, v := range []uint64{n, n, length, uint64(at)} {
			b = le.AppendUint64(b, v)
		}
		b = append(b, "PK\x06\x07\x00\x00\x00\x00"...)
		b = le.AppendUint64(b, end)
		b = le.AppendUint32(b, 1)
	}
	b = append(b, "PK\x05\x06\x00\x00\x00\x00"...)
	b = le.AppendUint16(b, uint16(min(n, math.MaxUint16)))
	b = le.AppendUint16(b, uint16(min(n, math.MaxUint16)))
	b = le.AppendUint32(b, uint32(min(length, max32)))
	b = le.AppendUint32(b, uint32(min(at, max32)))
	return append(b, 0, 0)
}
