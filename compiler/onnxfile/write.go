package onnxfile

import (
	"crypto/sha1"
	"encoding/hex"
	"io"
	"math"
	"path/filepath"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/atomicfile"
)

// WriteOptions says how to write. The zero value writes one file, except that
// tensors which were external data stay so.
type WriteOptions struct {
	// External, if positive, moves tensors of at least so many bytes into the
	// data file. Negative: everything into the model's own file.
	External int
	// DataFile is the data file's name beside the model; "" is the model's name
	// with .data added.
	DataFile string
	// Checksum adds the data file's checksum to each external tensor.
	Checksum bool
}

// Write writes the model. Nothing appears under the final names until all of
// it is written.
func (m *Model) Write(path string, opt WriteOptions) error {
	w := &writer{m: m}
	if opt.External >= 0 {
		if opt.DataFile == "" {
			opt.DataFile = filepath.Base(path) + ".data"
		}
		if filepath.Base(opt.DataFile) != opt.DataFile || !filepath.IsLocal(opt.DataFile) || opt.DataFile == filepath.Base(path) {
			return fault.New(fault.Usage, "the data file %q must be a plain name other than the model's", opt.DataFile)
		}
		w.ext = &externalOut{location: opt.DataFile, threshold: opt.External, all: opt.External > 0}
	}
	mp, err := w.checkedModel()
	if err != nil {
		return inFile(err, path)
	}
	if w.ext != nil && len(w.ext.chunks) > 0 {
		if err := w.ext.write(filepath.Join(filepath.Dir(path), opt.DataFile), opt.Checksum); err != nil {
			return err
		}
	}
	if pb.Size(mp) > math.MaxInt32 {
		return fault.New(fault.Usage, "the model takes more than the 2 GB that an ONNX file may hold").
			InFile(path).Hint("write its tensors as external data")
	}
	return atomicfile.Write(path, func(f io.Writer) error { return pb.Write(f, mp) })
}

// Bytes encodes the model as one file.
func (m *Model) Bytes() ([]byte, error) {
	mp, err := (&writer{m: m}).checkedModel()
	if err != nil {
		return nil, err
	}
	return pb.Marshal(mp), nil
}

func (w *writer) checkedModel() (*pb.ModelProto, error) {
	if w.m.tensors == nil {
		w.m.tensors = map[*tensor.Tensor]*tensorForm{}
	}
	if w.m.Graph.Level != ir.ONNX {
		return nil, fault.New(fault.Internal, "a core graph cannot be written as ONNX")
	}
	if err := ir.Verify(w.m.Graph); err != nil {
		return nil, fault.New(fault.Internal, "the graph to write is not sound: %w", err)
	}
	return w.model()
}

func (e *externalOut) write(path string, checksum bool) error {
	sum := sha1.New()
	err := atomicfile.Write(path, func(f io.Writer) error {
		if checksum {
			f = io.MultiWriter(f, sum)
		}
		at := int64(0)
		pad := make([]byte, externalAlign)
		for _, c := range e.chunks {
			if _, err := f.Write(pad[:c.offset-at]); err != nil {
				return err
			}
			if _, err := f.Write(c.data); err != nil {
				return err
			}
			at = c.offset + int64(len(c.data))
		}
		return nil
	})
	if checksum {
		for _, p := range e.protos {
			p.ExternalData = append(p.ExternalData, entry("checksum", hex.EncodeToString(sum.Sum(nil))))
		}
	}
	return err
}
