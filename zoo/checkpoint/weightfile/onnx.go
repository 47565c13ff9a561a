package weightfile

import (
	"bytes"
	"path/filepath"
	"strings"

	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
)

// OpenONNX reads the initializers of an ONNX model. The model stays mapped into
// memory as long as the checkpoint is open.
func OpenONNX(s weights.Store, place string) (*atom.Checkpoint, error) {
	m, err := onnxfile.Read(place, onnxfile.Options{})
	if err != nil {
		return nil, err
	}
	base := filepath.Base(place)
	c := &atom.Checkpoint{Format: "onnx", Store: s, Folder: ".", Name: strings.TrimSuffix(base, filepath.Ext(base)),
		Spec: &spec.Spec{}, Topology: atom.Topology{TP: 1, PP: 1, DP: 1}}
	atom.NewBook(c)
	c.Keep(m)
	r := &reader{c: c}
	for _, v := range m.Graph.Inits {
		t := v.Const
		if t == nil || t.DType == tensor.String || t.DType.Size() == 0 {
			c.Warnf("initializer %s has elements that are no whole bytes; it is left out", v.Name)
			continue
		}
		shape := atom.Dims(t.Shape)
		x := &atom.Tensor{DType: t.DType, Shape: shape, Pieces: []atom.Piece{{
			View: geometry.Whole(shape), Frags: []atom.Frag{{Len: geometry.Numel(shape), Blob: int32(len(c.Blobs))}},
		}}}
		c.Blobs = append(c.Blobs, atom.Blob{File: base, Offset: -1, Bytes: x.Bytes(), Data: bytes.NewReader(t.Bytes())})
		r.add(v.Name, x)
	}
	return c, c.Check()
}
