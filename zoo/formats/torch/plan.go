package torch

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// WriteOptions says how a file is written.
type WriteOptions struct {
	// Prefix is the folder inside the zip; empty means "archive". torch.save
	// uses the stem of the file name.
	Prefix string
	// ByteOrder adds the record that torch writes since 2.1.
	ByteOrder bool
}

// Layout is a planned file: one slot per storage that the root refers to, in
// the order of first use.
type Layout struct {
	weights.Plan
	Storages []*Storage

	slots   map[*Storage]int
	entries []entry
	dir     int64 // where the central directory begins
}

// entry is a record of the zip to be written.
type entry struct {
	name   string
	header int64
	offset int64
	size   int64
	data   []byte // nil for storages
}

// alignment is where torch puts every payload, so that it can be mapped.
const alignment = 64

// NewPlan pickles the values and lays out the file. Storages get new keys in
// order; their bytes are written through Plan.Begin or, when each has Data, by
// WriteData. Storages are written whole: make new ones of what is needed
// (ViewOf) instead of views of large ones.
func NewPlan(root Value, opt WriteOptions) (*Layout, error) {
	data, storages, err := Pickle(root, protocolFor(root))
	if err != nil {
		return nil, err
	}
	prefix := opt.Prefix
	if prefix == "" {
		prefix = "archive"
	}
	if strings.ContainsAny(prefix, "/\\\x00") || prefix == ".." || len(prefix) > 1<<12 {
		return nil, fmt.Errorf("%q cannot be the folder inside a zip", prefix)
	}
	l := &Layout{Storages: storages, slots: make(map[*Storage]int, len(storages))}
	l.entries = append(l.entries, entry{name: prefix + "/data.pkl", data: data, size: int64(len(data))})
	if opt.ByteOrder {
		l.entries = append(l.entries, entry{name: prefix + "/byteorder", data: []byte("little"), size: 6})
	}
	first := len(l.entries)
	for i, s := range storages {
		l.slots[s] = i
		l.entries = append(l.entries, entry{name: prefix + "/data/" + strconv.Itoa(i), size: s.Bytes()})
	}
	l.entries = append(l.entries, entry{name: prefix + "/version", data: []byte("3\n"), size: 2})
	l.place()
	l.Sums = true
	for _, e := range l.entries[first : first+len(storages)] {
		l.Slots = append(l.Slots, weights.Slot{Name: e.name, Offset: e.offset, Bytes: e.size})
	}
	l.Parts = func(sums []uint32) ([]weights.Part, error) { return l.parts(first, sums), nil }
	return l, nil
}

// Slot is the index of a storage's slot; -1 if the root does not refer to it.
func (l *Layout) Slot(s *Storage) int {
	if i, ok := l.slots[s]; ok {
		return i
	}
	return -1
}

// place gives every entry its position.
func (l *Layout) place() {
	pos := int64(0)
	for i := range l.entries {
		e := &l.entries[i]
		e.header = pos
		e.offset = pos + int64(len(e.local(0)))
		pos = e.offset + e.size
	}
	l.dir = pos
	l.Size = pos + int64(len(l.directory(make([]uint32, len(l.entries)))))
}

func (e *entry) wide() bool { return e.size >= max32 }

// local is the local header; its extra field pads the payload to the alignment
// (id "FB", filled with Z, as torch writes it).
func (e *entry) local(sum uint32) []byte {
	le := binary.LittleEndian
	var extra []byte
	size := uint32(e.size)
	version := uint16(0)
	if e.wide() {
		extra = le.AppendUint16(extra, extraZip64)
		extra = le.AppendUint16(extra, 16)
		extra = le.AppendUint64(extra, uint64(e.size))
		extra = le.AppendUint64(extra, uint64(e.size))
		size, version = max32, 45
	}
	plain := e.header + lenLocal + int64(len(e.name)) + int64(len(extra)) + 4
	pad := (alignment - plain%alignment) % alignment
	extra = append(extra, 'F', 'B')
	extra = le.AppendUint16(extra, uint16(pad))
	extra = append(extra, strings.Repeat("Z", int(pad))...)

	b := le.AppendUint32(nil, sigLocal)
	b = le.AppendUint16(b, version)
	b = le.AppendUint16(b, 1<<11)     // names are UTF-8
	b = append(b, make([]byte, 6)...) // stored, no time
	b = le.AppendUint32(b, sum)
	b = le.AppendUint32(b, size)
	b = le.AppendUint32(b, size)
	b = le.AppendUint16(b, uint16(len(e.name)))
	b = le.AppendUint16(b, uint16(len(extra)))
	b = append(b, e.name...)
	return append(b, extra...)
}

// central is the entry of the central directory.
func (e *entry) central(b []byte, sum uint32) []byte {
	le := binary.LittleEndian
	var extra []byte
	size, header, version := uint32(min(e.size, max32)), uint32(min(e.header, max32)), uint16(0)
	if e.wide() {
		extra = le.AppendUint64(extra, uint64(e.size))
		extra = le.AppendUint64(extra, uint64(e.size))
	}
	if e.header >= max32 {
		extra = le.AppendUint64(extra, uint64(e.header))
	}
	if len(extra) > 0 {
		head := le.AppendUint16(nil, extraZip64)
		extra = append(le.AppendUint16(head, uint16(len(extra))), extra...)
		version = 45
	}
	b = le.AppendUint32(b, sigCentral)
	b = le.AppendUint16(b, version)
	b = le.AppendUint16(b, version)
	b = le.AppendUint16(b, 1<<11)
	b = append(b, make([]byte, 6)...)
	b = le.AppendUint32(b, sum)
	b = le.AppendUint32(b, size)
	b = le.AppendUint32(b, size)
	b = le.AppendUint16(b, uint16(len(e.name)))
	b = le.AppendUint16(b, uint16(len(extra)))
	b = append(b, make([]byte, 10)...) // no comment, first disk, no attributes
	b = le.AppendUint32(b, header)
	b = append(b, e.name...)
	return append(b, extra...)
}

// directory is the central directory and the records at the end of the zip.
func (l *Layout) directory(sums []uint32) []byte {
	le := binary.LittleEndian
	var b []byte
	for i := range l.entries {
		b = l.entries[i].central(b, sums[i])
	}
	n, length := uint64(len(l.entries)), uint64(len(b))
	if n >= max16 || length >= max32 || l.dir >= max32 {
		at := uint64(l.dir) + length
		b = le.AppendUint32(b, sigEnd64)
		b = le.AppendUint64(b, lenEnd64-12)
		b = le.AppendUint16(b, 45)
		b = le.AppendUint16(b, 45)
		b = append(b, make([]byte, 8)...) // one disk
		b = le.AppendUint64(b, n)
		b = le.AppendUint64(b, n)
		b = le.AppendUint64(b, length)
		b = le.AppendUint64(b, uint64(l.dir))
		b = le.AppendUint32(b, sigLocator64)
		b = append(b, make([]byte, 4)...)
		b = le.AppendUint64(b, at)
		b = le.AppendUint32(b, 1)
	}
	b = le.AppendUint32(b, sigEnd)
	b = append(b, make([]byte, 4)...)
	b = le.AppendUint16(b, uint16(min(n, max16)))
	b = le.AppendUint16(b, uint16(min(n, max16)))
	b = le.AppendUint32(b, uint32(min(length, max32)))
	b = le.AppendUint32(b, uint32(min(l.dir, max32)))
	return append(b, 0, 0)
}

// parts is everything but the storages.
func (l *Layout) parts(first int, sums []uint32) []weights.Part {
	all := make([]uint32, len(l.entries))
	var out []weights.Part
	for i := range l.entries {
		e := &l.entries[i]
		if e.data != nil {
			all[i] = weights.CRC(e.data)
		} else {
			all[i] = sums[i-first]
		}
		out = append(out, weights.Part{Offset: e.header, Data: append(e.local(all[i]), e.data...)})
	}
	return append(out, weights.Part{Offset: l.dir, Data: l.directory(all)})
}

// WriteData writes a file whose storages all have Data.
func (l *Layout) WriteData(w io.WriterAt) error {
	return l.Write(w, func(i int) (io.ReaderAt, error) {
		if l.Storages[i].Data == nil {
			return nil, fmt.Errorf("storage %d has no data", i)
		}
		return l.Storages[i].Data, nil
	})
}

// Save writes values whose storages all have Data as a file of a store.
func Save(s weights.Store, name string, root Value, opt WriteOptions) error {
	l, err := NewPlan(root, opt)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w, err := s.Create(name, l.Size)
	if err != nil {
		return err
	}
	if err := l.WriteData(w); err != nil {
		w.Close()
		return fmt.Errorf("%s: %w", name, err)
	}
	return w.Close()
}
