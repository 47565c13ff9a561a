package data

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// idxTypes are the element types of the IDX format (the MNIST page).
var idxTypes = map[byte]tensor.DType{
	0x08: tensor.U8, 0x09: tensor.I8, 0x0b: tensor.I16, 0x0c: tensor.I32, 0x0d: tensor.F32, 0x0e: tensor.F64,
}

// ReadIDX reads the format of the MNIST files: big-endian, one tensor.
func ReadIDX(b []byte) (*tensor.Tensor, error) {
	if len(b) < 4 || b[0] != 0 || b[1] != 0 {
		return nil, errors.New("it does not begin with IDX's magic")
	}
	d, ok := idxTypes[b[2]]
	if !ok {
		return nil, fmt.Errorf("element type 0x%02x is unknown", b[2])
	}
	rank := int(b[3])
	if len(b) < 4+4*rank {
		return nil, errors.New("the header is cut off")
	}
	shape := make([]int, rank)
	for i := range shape {
		shape[i] = int(binary.BigEndian.Uint32(b[4+4*i:]))
	}
	raw := slices.Clone(b[4+4*rank:])
	if s := d.Size(); s > 1 && len(raw)%s == 0 {
		for i := 0; i < len(raw); i += s {
			slices.Reverse(raw[i : i+s])
		}
	}
	return tensor.FromBytes(d, shape, raw)
}

const cifarRecord = 1 + 3*32*32

// ReadCIFAR10 reads records of the CIFAR-10 binary version: images
// [n,3,32,32] and labels [n], both uint8.
func ReadCIFAR10(path string) (images, labels *tensor.Tensor, err error) {
	b, err := ReadBytes(path)
	if err != nil {
		return nil, nil, err
	}
	n := len(b) / cifarRecord
	if n*cifarRecord != len(b) || n == 0 {
		return nil, nil, fault.New(fault.BadModel, "%d bytes are not a number of CIFAR-10 records of %d", len(b), cifarRecord).InFile(path)
	}
	images, labels = tensor.New(tensor.U8, n, 3, 32, 32), tensor.New(tensor.U8, n)
	for i := range n {
		r := b[i*cifarRecord:]
		labels.Bytes()[i] = r[0]
		copy(images.Bytes()[i*(cifarRecord-1):], r[1:cifarRecord])
	}
	return images, labels, nil
}
