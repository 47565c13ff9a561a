package onnxfile

import (
	"errors"
	"fmt"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// The IR versions that lathe reads.
const (
	MinIRVersion = 3
	MaxIRVersion = int64(pb.Version_13)
)

// Opset is one import: the ops of a domain at a version.
type Opset struct {
	Domain  string // "" is ai.onnx
	Version int64
	extra   []byte
}

// Model is an ONNX file.
type Model struct {
	// Path is the file that the model was read from, for messages.
	Path            string
	IRVersion       int64
	Producer        string
	ProducerVersion string
	Domain          string
	Version         int64
	Doc             string
	Opsets          []Opset
	Graph           *ir.Graph
	Functions       []*Function
	Meta            []ir.KV
	// Extra holds wire fields that lathe does not interpret: training
	// information, device configurations, fields of a later ONNX.
	Extra []byte

	tensors  map[*tensor.Tensor]*tensorForm
	infos    map[infoKey]*infoForm
	laxInits bool // IR version 3, but not every initializer is an input
	maps     []mapping
}

// Function is a model-local function: a body with the opsets it was written
// for. A node whose domain, op type and overload name it calls it.
type Function struct {
	Domain   string
	Name     string
	Overload string
	Opsets   []Opset
	Doc      string
	// Params are the attributes that a call must give; Defaults those that it
	// may give.
	Params   []string
	Defaults []ir.Attr
	Body     *ir.Graph
	Meta     []ir.KV
	Extra    []byte
}

// tensorForm remembers how a file stored a tensor: its fields beside the data.
type tensorForm struct {
	head    *pb.TensorProto
	storage storage
	sparse  *pb.SparseTensorProto
}

type storage uint8

const (
	inRaw storage = iota
	inTyped
	inExternal
)

// infoKey is one place where a file describes a value.
type infoKey struct {
	value *ir.Value
	role  role
}

type role uint8

const (
	asInput role = iota
	asOutput
	asInfo
)

// infoForm remembers a description that does not follow from the value, as
// long as the value's type stays what it was.
type infoForm struct {
	src *pb.ValueInfoProto
	typ ir.Type
}

// New makes a model around a graph, for the newest IR version and one import
// of the ONNX ops.
func New(g *ir.Graph, opset int64) *Model {
	return &Model{IRVersion: MaxIRVersion, Opsets: []Opset{{Version: opset}}, Graph: g}
}

// Opset is the imported version of a domain ("" and "ai.onnx" are one); 0 if
// the model does not import it.
func (m *Model) Opset(domain string) int { return opsetOf(m.Opsets, domain) }

// OpsetTable is the imported version of each domain; "" stands for ONNX's own.
func (m *Model) OpsetTable() map[string]int {
	t := map[string]int{}
	for _, o := range m.Opsets {
		t[normalDomain(o.Domain)] = int(o.Version)
	}
	return t
}

// Opset is the version of a domain that the function was written for.
func (f *Function) Opset(domain string) int { return opsetOf(f.Opsets, domain) }

func opsetOf(list []Opset, domain string) int {
	for _, o := range list {
		if normalDomain(o.Domain) == normalDomain(domain) {
			return int(o.Version)
		}
	}
	return 0
}

// SetOpset sets or adds an import.
func (m *Model) SetOpset(domain string, version int64) {
	for i := range m.Opsets {
		if normalDomain(m.Opsets[i].Domain) == normalDomain(domain) {
			m.Opsets[i].Version = version
			return
		}
	}
	m.Opsets = append(m.Opsets, Opset{Domain: domain, Version: version})
}

func normalDomain(d string) string {
	if d == "ai.onnx" {
		return ""
	}
	return d
}

// Function finds the function that a node calls; nil if it calls none.
func (m *Model) Function(n *ir.Node) *Function {
	for _, f := range m.Functions {
		if f.Name == n.Op && f.Overload == n.Overload && normalDomain(f.Domain) == normalDomain(n.Domain) {
			return f
		}
	}
	return nil
}

// FeedInputs are the graph inputs that a caller must feed: those without a
// default value.
func (m *Model) FeedInputs() []*ir.Value {
	var vs []*ir.Value
	for _, v := range m.Graph.Inputs {
		if v.Const == nil {
			vs = append(vs, v)
		}
	}
	return vs
}

// Close unmaps the files that the model's tensors may share memory with. Call
// it only when none of them is used any more; without it they stay mapped.
func (m *Model) Close() error {
	var errs []error
	for _, mp := range m.maps {
		errs = append(errs, mp.unmap())
	}
	m.maps = nil
	return errors.Join(errs...)
}

func bad(format string, args ...any) *fault.Error {
	return fault.New(fault.BadModel, format, args...)
}

func unsupported(format string, args ...any) *fault.Error {
	return fault.New(fault.Unsupported, format, args...)
}

// inFile names the file in a classed error that names none.
func inFile(err error, path string) error {
	var f *fault.Error
	if path != "" && errors.As(err, &f) && f.File == "" {
		f.File = path
	}
	return err
}

// atNode names the node in a classed error that names none.
func atNode(err error, n *ir.Node) error {
	var f *fault.Error
	if errors.As(err, &f) && f.Node == "" && f.Op == "" {
		f.Node, f.Op = n.Label(), n.FullOp()
	}
	return err
}

// prefixed puts words before an error's and keeps its class.
func prefixed(err error, format string, args ...any) error {
	var f *fault.Error
	if errors.As(err, &f) {
		f.Msg = fmt.Sprintf(format, args...) + ": " + f.Msg
		return err
	}
	return bad(format+": %w", append(args, err)...)
}
