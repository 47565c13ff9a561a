package pb

import (
	"errors"
	"fmt"
	"io"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Bits says which fields of a message stood in the file, by field number. A
// field that is not zero is written whether its bit is set or not; a zero one
// only with its bit. For repeated scalars the bit says that the file packed
// (or did not pack) them contrary to onnx.txt.
type Bits uint64

// Has reports the bit of field n.
func (b Bits) Has(n int) bool { return b>>n&1 == 1 }

// Set sets the bit of field n.
func (b *Bits) Set(n int) { *b |= 1 << n }

// Clear clears the bit of field n.
func (b *Bits) Clear(n int) { *b &^= 1 << n }

// Message is a generated struct.
type Message interface {
	decode(d *decoder, b []byte) error
	size() int
	encode(e *encoder)
}

// Limits of one file. Honest models stay far below them: they bound stack and
// memory for files that are made to exhaust them.
const (
	maxDepth    = 100     // nested messages, as in other protocol buffer readers
	maxMessages = 1 << 22 // messages in one file
)

// ErrDepth and ErrCount tell that a file exceeds a limit.
var (
	ErrDepth = fmt.Errorf("messages nest deeper than %d", maxDepth)
	ErrCount = fmt.Errorf("the file holds more than %d messages", maxMessages)
	errShort = errors.New("the file ends in the middle of a message, or is not an ONNX file")
)

type decoder struct{ depth, count int }

// Unmarshal decodes b into m, adding to what m holds. Bytes fields of m share
// b's memory.
func Unmarshal(b []byte, m Message) error { return m.decode(&decoder{}, b) }

// message decodes one nested message.
func (d *decoder) message(m Message, b []byte) error {
	if d.depth++; d.depth > maxDepth {
		return ErrDepth
	}
	if d.count++; d.count > maxMessages {
		return ErrCount
	}
	err := m.decode(d, b)
	d.depth--
	return err
}

// wireField is one field as it stands in the file: for varint and fixed types the
// bits of its value, for the others its bytes.
type wireField struct {
	num   protowire.Number
	typ   protowire.Type
	bits  uint64
	val   []byte
	whole []byte
}

// next splits one field off b.
func next(b []byte) (f wireField, rest []byte, err error) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return f, nil, errShort
	}
	f.num, f.typ = num, typ
	body := b[n:]
	m := 0
	switch typ {
	case protowire.VarintType:
		f.bits, m = protowire.ConsumeVarint(body)
	case protowire.Fixed32Type:
		var v uint32
		v, m = protowire.ConsumeFixed32(body)
		f.bits = uint64(v)
	case protowire.Fixed64Type:
		f.bits, m = protowire.ConsumeFixed64(body)
	case protowire.BytesType:
		f.val, m = protowire.ConsumeBytes(body)
	default:
		m = protowire.ConsumeFieldValue(num, typ, body)
	}
	if m < 0 {
		return f, nil, errShort
	}
	f.whole = b[:n+m]
	return f, body[m:], nil
}

// Packed runs of scalars.

func unpackVarint[T int32 | int64 | uint64](dst []T, b []byte) ([]T, error) {
	n := 0
	for _, c := range b {
		if c < 0x80 {
			n++
		}
	}
	dst = grow(dst, n)
	for len(b) > 0 {
		v, m := protowire.ConsumeVarint(b)
		if m < 0 {
			return nil, errShort
		}
		dst = append(dst, T(v))
		b = b[m:]
	}
	return dst, nil
}

func unpackFloat(dst []float32, b []byte) ([]float32, error) {
	if len(b)%4 != 0 {
		return nil, errShort
	}
	dst = grow(dst, len(b)/4)
	for ; len(b) > 0; b = b[4:] {
		v, _ := protowire.ConsumeFixed32(b)
		dst = append(dst, math.Float32frombits(v))
	}
	return dst, nil
}

func unpackDouble(dst []float64, b []byte) ([]float64, error) {
	if len(b)%8 != 0 {
		return nil, errShort
	}
	dst = grow(dst, len(b)/8)
	for ; len(b) > 0; b = b[8:] {
		v, _ := protowire.ConsumeFixed64(b)
		dst = append(dst, math.Float64frombits(v))
	}
	return dst, nil
}

func grow[T any](s []T, n int) []T {
	if s == nil {
		return make([]T, 0, n)
	}
	return s
}

// encoder streams to w; bytes fields of any size pass through without a copy.
type encoder struct {
	buf []byte
	w   io.Writer
	err error
}

const flushAt = 1 << 16

// Write encodes m to w. It is not safe to call for one message from two
// goroutines: sizes are kept in the messages meanwhile.
func Write(w io.Writer, m Message) error {
	m.size()
	e := &encoder{w: w}
	m.encode(e)
	e.flush()
	return e.err
}

// Marshal encodes m.
func Marshal(m Message) []byte {
	e := &encoder{buf: make([]byte, 0, m.size())}
	m.encode(e)
	return e.buf
}

// Size is the number of bytes that m takes when encoded.
func Size(m Message) int { return m.size() }

func (e *encoder) flush() {
	if e.w == nil || len(e.buf) == 0 {
		return
	}
	if e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
}

func (e *encoder) tag(num protowire.Number, typ protowire.Type) {
	if len(e.buf) >= flushAt {
		e.flush()
	}
	e.buf = protowire.AppendTag(e.buf, num, typ)
}

func (e *encoder) varint(v uint64) { e.buf = protowire.AppendVarint(e.buf, v) }
func (e *encoder) fixed32(v uint32) {
	e.buf = protowire.AppendFixed32(e.buf, v)
}
func (e *encoder) fixed64(v uint64) {
	e.buf = protowire.AppendFixed64(e.buf, v)
}

func (e *encoder) bytes(b []byte) {
	e.varint(uint64(len(b)))
	e.raw(b)
}

func (e *encoder) str(s string) {
	e.varint(uint64(len(s)))
	e.buf = append(e.buf, s...)
}

func (e *encoder) raw(b []byte) {
	if e.w == nil || len(b) < flushAt {
		e.buf = append(e.buf, b...)
		return
	}
	e.flush()
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
}

// spill keeps the buffer small inside long packed runs.
func (e *encoder) spill() {
	if e.w != nil && len(e.buf) >= flushAt {
		e.flush()
	}
}

func sizeTag(num protowire.Number) int { return protowire.SizeTag(num) }
func sizeVarint(v uint64) int          { return protowire.SizeVarint(v) }
func sizeBytes(n int) int              { return protowire.SizeBytes(n) }

func sizeVarints[T int32 | int64 | uint64](s []T) int {
	n := 0
	for _, v := range s {
		n += protowire.SizeVarint(uint64(int64(v)))
	}
	return n
}
