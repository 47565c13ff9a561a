package weights

import (
	"fmt"
	"io"
	"math"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Tensor is a tensor inside a file: where its elements lie, not the elements.
// Bytes are little-endian.
type Tensor struct {
	Name  string
	DType tensor.DType
	Shape []int
	// Stride is in elements, one per dimension; nil means row-major without
	// gaps. A stride of 0 repeats elements.
	Stride []int
	// File is the name of the file in its Store.
	File string
	// Offset is the position in the file of the element at index 0, 0, …
	Offset int64
}

// Len is the number of elements.
func (t *Tensor) Len() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= int64(d)
	}
	return n
}

// Bytes is the size of the elements when packed without gaps.
func (t *Tensor) Bytes() int64 { return (t.Len()*int64(t.DType.Bits()) + 7) / 8 }

// Contiguous reports whether the elements lie in the file as one row-major
// range of Bytes bytes.
func (t *Tensor) Contiguous() bool { return Contiguous(t.Shape, t.Stride) }

// Contiguous reports whether strides describe row-major elements without gaps;
// nil strides do.
func Contiguous(shape, stride []int) bool {
	if stride == nil {
		return true
	}
	want := 1
	for i := len(shape) - 1; i >= 0; i-- {
		if shape[i] == 0 {
			return true
		}
		if shape[i] != 1 && stride[i] != want {
			return false
		}
		want *= shape[i]
	}
	return true
}

// RowMajor is the strides of a row-major tensor without gaps.
func RowMajor(shape []int) []int {
	out := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		out[i] = n
		n *= max(shape[i], 1)
	}
	return out
}

// Extent is the number of elements that must lie at and after the first one so
// that every index is inside; 0 for tensors without elements. It is an error
// when it does not fit the integers.
func Extent(shape, stride []int) (int64, error) {
	if stride != nil && len(stride) != len(shape) {
		return 0, fmt.Errorf("%d strides for %d dimensions", len(stride), len(shape))
	}
	n, last := int64(1), int64(0)
	for i := len(shape) - 1; i >= 0; i-- {
		d := int64(shape[i])
		if d < 0 {
			return 0, fmt.Errorf("dimension %d is negative (%d)", i, d)
		}
		if d > 0 && n > math.MaxInt64/16/d {
			return 0, fmt.Errorf("shape %v has too many elements", shape)
		}
		st := n
		if stride != nil {
			st = int64(stride[i])
		}
		if st < 0 {
			return 0, fmt.Errorf("stride %d is negative (%d)", i, st)
		}
		if d > 1 && st > (math.MaxInt64/16-last)/(d-1) {
			return 0, fmt.Errorf("strides %v reach too far", stride)
		}
		last += max(d-1, 0) * st
		n *= d
	}
	if n == 0 {
		return 0, nil
	}
	return last + 1, nil
}

// Reader reads the packed row-major bytes of the tensor out of its open file,
// whatever its strides are: position 0 is the first byte of the first element.
func (t *Tensor) Reader(file io.ReaderAt) io.ReaderAt {
	if t.Contiguous() {
		return io.NewSectionReader(file, t.Offset, t.Bytes())
	}
	return newStrided(t, file)
}

// Load reads the whole tensor into memory.
func (t *Tensor) Load(file io.ReaderAt) (*tensor.Tensor, error) {
	b := make([]byte, t.Bytes())
	if err := ReadFull(t.Reader(file), b, 0); err != nil {
		return nil, fmt.Errorf("%s: tensor %s: %w", t.File, t.Name, err)
	}
	return tensor.FromBytes(t.DType, t.Shape, b)
}

// strided gathers elements by their strides. Inner dimensions that are
// contiguous are read as one run.
type strided struct {
	file   io.ReaderAt
	base   int64
	shape  []int
	stride []int64 // in bytes
	run    int64   // bytes that lie together
	size   int64
}

func newStrided(t *Tensor, file io.ReaderAt) *strided {
	es := int64(t.DType.Size())
	s := &strided{file: file, base: t.Offset, run: es, size: t.Bytes()}
	k := len(t.Shape)
	for k > 0 && (t.Shape[k-1] == 1 || int64(t.Stride[k-1])*es == s.run) {
		k--
		s.run *= int64(t.Shape[k])
	}
	s.shape = t.Shape[:k]
	for _, st := range t.Stride[:k] {
		s.stride = append(s.stride, int64(st)*es)
	}
	return s
}

// place is the file position of run i.
func (s *strided) place(i int64) int64 {
	pos := s.base
	for k := len(s.shape) - 1; k >= 0; k-- {
		d := int64(s.shape[k])
		pos += i % d * s.stride[k]
		i /= d
	}
	return pos
}

// window is how much of the file is read at once when runs are short.
const window = 1 << 18

// ReadAt fills p with packed bytes from position off on.
func (s *strided) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= s.size {
		return 0, io.EOF
	}
	want := len(p)
	p = p[:min(int64(len(p)), s.size-off)]
	var buf []byte
	lo, hi := int64(0), int64(0) // the file range that buf holds
	n := 0
	for n < len(p) {
		i, in := off/s.run, off%s.run
		pos := s.place(i) + in
		m := int(min(s.run-in, int64(len(p)-n)))
		switch {
		case m >= window/4:
			if err := ReadFull(s.file, p[n:n+m], pos); err != nil {
				return n, err
			}
		default:
			if pos < lo || pos+int64(m) > hi {
				if buf == nil {
					buf = make([]byte, window)
				}
				// Reading may end early at the end of the file; only the
				// run itself must be there.
				k, err := s.file.ReadAt(buf, pos)
				if k < m {
					if err == nil || err == io.EOF {
						err = io.ErrUnexpectedEOF
					}
					return n, err
				}
				lo, hi = pos, pos+int64(k)
			}
			copy(p[n:n+m], buf[pos-lo:])
		}
		n += m
		off += int64(m)
	}
	if n < want {
		return n, io.EOF
	}
	return n, nil
}
