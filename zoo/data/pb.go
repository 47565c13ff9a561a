package data

import (
	"errors"
	"io"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// ReadPB reads an ONNX TensorProto, as the files of recorded test data hold it.
func ReadPB(b []byte) (*tensor.Tensor, error) {
	d, err := onnxfile.DecodeData(b, ir.Type{Form: ir.FormTensor}, onnxfile.Options{})
	if err != nil {
		return nil, err
	}
	if d.Tensor == nil {
		return nil, errors.New("it holds no tensor")
	}
	return d.Tensor, nil
}

// WritePB writes an ONNX TensorProto with its name.
func WritePB(w io.Writer, name string, t *tensor.Tensor) error {
	b, err := onnxfile.EncodeData(name, ir.TensorData(t))
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}
