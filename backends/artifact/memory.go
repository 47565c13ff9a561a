package artifact

import (
	"unsafe"

	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Aligned gives zeroed memory that begins at a cache line.
func Aligned(n int) []byte {
	b := make([]byte, n+program.Align)
	off := int(-uintptr(unsafe.Pointer(&b[0])) & (program.Align - 1))
	return b[off : off+n : off+n]
}

// Memory is where the buffers of one run lie.
type Memory struct {
	Workspace, Weights []byte
	In, Out            []*tensor.Tensor
}

// Bytes is the memory of a buffer. The program's plan has been checked to lie
// within the memory; a buffer that does not is a panic, not a wild access.
func (m *Memory) Bytes(b *program.Buf) []byte {
	switch b.Where {
	case program.Input:
		return m.In[b.Index].Bytes()
	case program.Output:
		return m.Out[b.Index].Bytes()
	case program.Const:
		return m.Weights[b.Offset : b.Offset+b.Size() : b.Offset+b.Size()]
	}
	return m.Workspace[b.Offset : b.Offset+b.Size() : b.Offset+b.Size()]
}
