package onnxfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Options says how to read. The zero value is right for most callers.
type Options struct {
	// Dir is the folder that external data must lie in; ReadBytes refuses
	// external data without it, Read takes the model's folder.
	Dir string
	// SkipChecksums leaves the checksums of external data unchecked.
	SkipChecksums bool
}

// Read reads a model. Its file, and files of external data, are mapped into
// memory; tensors share that memory where their alignment allows.
func Read(path string, opt Options) (*Model, error) {
	mp, err := openMapped(fileSystem, path)
	if err != nil {
		return nil, err
	}
	if opt.Dir == "" {
		opt.Dir = filepath.Dir(path)
	}
	m, err := readModel(mp.data, path, opt)
	if err != nil {
		_ = mp.unmap() // the first error tells more
		return nil, err
	}
	m.maps = append(m.maps, mp)
	return m, nil
}

// ReadBytes reads a model from memory; the model's tensors may share it.
func ReadBytes(b []byte, opt Options) (*Model, error) { return readModel(b, "", opt) }

// folder opens files by name; stat comes first, since opening a pipe would wait.
type folder struct {
	stat func(string) (fs.FileInfo, error)
	open func(string) (*os.File, error)
}

var fileSystem = folder{os.Stat, os.Open}

// openMapped maps a regular file.
func openMapped(dir folder, path string) (mapping, error) {
	if st, err := dir.stat(path); err == nil && !st.Mode().IsRegular() {
		return mapping{}, bad("is not a regular file").InFile(path)
	}
	f, err := dir.open(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return mapping{}, bad("cannot be read: %w", err).InFile(path)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return mapping{}, bad("cannot be read: %w", err).InFile(path)
	}
	mp, err := mapFile(f, st.Size())
	if err != nil {
		return mapping{}, bad("cannot be read: %w", err).InFile(path)
	}
	return mp, nil
}

type reader struct {
	m    *Model
	opt  Options
	ext  map[string][]byte // external files by location
	sums map[string]string // their checksums
}

func newReader(path string, opt Options) *reader {
	return &reader{
		m: &Model{
			Path: path, tensors: map[*tensor.Tensor]*tensorForm{}, infos: map[infoKey]*infoForm{},
		},
		opt: opt, ext: map[string][]byte{}, sums: map[string]string{},
	}
}

func readModel(b []byte, path string, opt Options) (*Model, error) {
	if len(b) == 0 {
		return nil, bad("the file is empty").InFile(path)
	}
	mp := &pb.ModelProto{}
	if err := pb.Unmarshal(b, mp); err != nil {
		return nil, bad("not a readable ONNX model: %w", err).InFile(path)
	}
	r := newReader(path, opt)
	if err := r.model(mp); err != nil {
		_ = r.m.Close() // the first error tells more
		return nil, inFile(err, path)
	}
	return r.m, nil
}

func (r *reader) model(mp *pb.ModelProto) error {
	m := r.m
	m.IRVersion, m.Producer, m.ProducerVersion = mp.IrVersion, mp.ProducerName, mp.ProducerVersion
	m.Domain, m.Version, m.Doc = mp.Domain, mp.ModelVersion, mp.DocString
	m.Meta = kvs(mp.MetadataProps)
	if err := checkHead(mp); err != nil {
		return err
	}
	for _, o := range mp.OpsetImport {
		m.Opsets = append(m.Opsets, readOpset(o))
	}
	m.Extra = modelExtra(mp)
	g, err := r.graph(mp.Graph, nil)
	if err != nil {
		return err
	}
	m.Graph = g
	m.laxInits = m.IRVersion < 4 && !initsAreInputs(g)
	for _, fp := range mp.Functions {
		f, err := r.function(fp)
		if err != nil {
			return err
		}
		m.Functions = append(m.Functions, f)
	}
	return nil
}

func checkHead(mp *pb.ModelProto) error {
	switch {
	case mp.Graph == nil:
		return bad("the file holds no graph").Hint("is it an ONNX model?")
	case mp.IrVersion < MinIRVersion:
		return unsupported("IR version %d; lathe reads %d to %d", mp.IrVersion, MinIRVersion, MaxIRVersion).
			Hint("convert the model with onnx.version_converter")
	case mp.IrVersion > MaxIRVersion:
		return unsupported("IR version %d; lathe reads %d to %d", mp.IrVersion, MinIRVersion, MaxIRVersion).
			Hint("export the model for an older IR version")
	case len(mp.OpsetImport) == 0:
		return bad("the model imports no opset")
	}
	seen := map[string]bool{}
	for _, o := range mp.OpsetImport {
		d := normalDomain(o.Domain)
		if seen[d] {
			return bad("opset domain %q is imported twice", o.Domain)
		}
		seen[d] = true
		if o.Version < 1 {
			return bad("opset domain %q is imported with version %d", o.Domain, o.Version)
		}
	}
	return nil
}

func readOpset(o *pb.OperatorSetIdProto) Opset {
	x := *o
	x.Version = 0
	x.Has.Clear(2)
	if x.Domain != "" {
		x.Domain = ""
		x.Has.Clear(1)
	}
	return Opset{Domain: o.Domain, Version: o.Version, extra: marshalRest(&x)}
}

// marshalRest encodes what is left of a message when the fields that the IR
// expresses are cleared: unknown fields, uninterpreted ones, and empty fields
// that stand in the file.
func marshalRest(m pb.Message) []byte {
	if b := pb.Marshal(m); len(b) > 0 {
		return b
	}
	return nil
}

// clearStrings clears string fields that are not empty; what the file holds as
// an empty string stays, by its presence bit.
func clearStrings(has *pb.Bits, fields map[int]*string) {
	for n, s := range fields {
		if *s != "" {
			*s = ""
			has.Clear(n)
		}
	}
}

func modelExtra(mp *pb.ModelProto) []byte {
	x := *mp
	clearStrings(&x.Has, map[int]*string{2: &x.ProducerName, 3: &x.ProducerVersion, 4: &x.Domain, 6: &x.DocString})
	x.IrVersion, x.Graph, x.OpsetImport, x.MetadataProps, x.Functions = 0, nil, nil, nil, nil
	x.Has.Clear(1)
	if x.ModelVersion != 0 {
		x.ModelVersion = 0
		x.Has.Clear(5)
	}
	return marshalRest(&x)
}

func kvs(es []*pb.StringStringEntryProto) []ir.KV {
	var out []ir.KV
	for _, e := range es {
		out = append(out, ir.KV{Key: e.Key, Value: e.Value})
	}
	return out
}

func initsAreInputs(g *ir.Graph) bool {
	in := map[*ir.Value]bool{}
	for _, v := range g.Inputs {
		in[v] = true
	}
	for _, v := range g.Inits {
		if !in[v] {
			return false
		}
	}
	return true
}
