// Package program is all that a backend sees of a model: kernels, the steps
// that call them in order, one memory plan, constants, and the signature.
//
// It must not know graphs, ops or how kernels came about.
package program

import (
	"fmt"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/schedule"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Where says which memory a buffer lives in.
type Where uint8

// The memories of a program.
const (
	Arena Where = iota // the workspace, shared by lifetime
	Input
	Output
	Const // the weights file
)

// Buf is a flat array of a program. Offset is in bytes, within the workspace
// or the weights file; Index is the position among inputs or outputs.
type Buf struct {
	Name   string
	Where  Where
	Type   tensor.DType
	Len    int
	Offset int
	Index  int
	// Of is the buffer that this one is a part of, nil for none; it begins From
	// bytes into it. Parts lie within the workspace and end within their whole.
	Of   *Buf
	From int
}

// Whole is the buffer that has memory of its own, and where b begins in it.
func (b *Buf) Whole() (whole *Buf, from int) {
	for ; b.Of != nil; b = b.Of {
		from += b.From
	}
	return b, from
}

// Size is the buffer's size in bytes.
func (b *Buf) Size() int { return b.Len * storage(b.Type) }

// storage is the number of bytes per element in compiled memory.
func storage(d tensor.DType) int { return d.Size() }

// Constant is a buffer with its contents. Fill makes the bytes when they are
// needed, so that packed weights are never all in memory at once.
type Constant struct {
	Buf  *Buf
	Fill func() ([]byte, error)
}

// Step is one kernel call; Args are in the order of the kernel's parameters.
type Step struct {
	Kernel *loop.Kernel
	Args   []*Buf
	Label  string // the model's values that it computes
	Origin string // the ONNX nodes that it stems from
	Site   string // the key of the decision that made it; "" for none
	Layer  string // the stored value that it makes or makes ready for; "" for copies at the ends
}

// Port is an input or output of the model.
type Port struct {
	Name  string
	Type  tensor.DType
	Shape []int
	Buf   *Buf
}

// Program is a compiled model without its code.
type Program struct {
	Name       string
	Inputs     []Port
	Outputs    []Port
	Consts     []*Constant
	Steps      []Step
	Kernels    []*loop.Kernel // each once, in order of first use
	Workspace  int            // bytes
	Weights    int            // bytes
	ParallelOK bool
	Sites      []schedule.Site // the decisions that made its kernels
}

// Align is the alignment of every buffer, in bytes: a cache line, and the
// widest vector.
const Align = 64

// Check verifies that every step's arguments fit its kernel.
func (p *Program) Check() error {
	for i, s := range p.Steps {
		if len(s.Args) != len(s.Kernel.Params) {
			return fmt.Errorf("step %d (%s): %d arguments for %d parameters", i, s.Label, len(s.Args), len(s.Kernel.Params))
		}
		for j, a := range s.Args {
			q := s.Kernel.Params[j]
			if a.Type != q.Type || a.Len < q.Len {
				return fmt.Errorf("step %d (%s): argument %s %s[%d] for parameter %s %s[%d]", i, s.Label, a.Name, a.Type, a.Len, q.Name, q.Type, q.Len)
			}
			if q.Out && (a.Where == Const || a.Where == Input) {
				return fmt.Errorf("step %d (%s): writes to constant or input %s", i, s.Label, a.Name)
			}
		}
	}
	return nil
}
