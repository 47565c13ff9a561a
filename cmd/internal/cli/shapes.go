package cli

import (
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/onnxfile/onnxgo"
	"github.com/lathe-ml/lathe/internal/nearest"
)

// shapeFlags are the three ways to say how large a model's inputs are.
type shapeFlags struct {
	dims   []string
	shapes []string
	from   string
}

func (s *shapeFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.dims, "dim", nil, "size of a named dimension, such as batch=1; repeat it, or separate with commas")
	f.StringArrayVar(&s.shapes, "input-shapes", nil, "whole input shapes, such as x:1x3x224x224; repeat it, or separate with commas")
	f.StringVar(&s.from, "shapes-from", "", "take input shapes from the recorded inputs in this folder (input_0.pb, …)")
}

// options resolves the flags against a model's inputs.
func (s *shapeFlags) options(m *onnxfile.Model) (onnx.Options, error) {
	o := onnx.Options{Opsets: conformance.Opsets(m), Dims: map[string]int{}, Shapes: map[string][]int{}}
	if err := s.parseDims(m, o.Dims); err != nil {
		return o, err
	}
	if s.from != "" {
		set, err := conformance.ReadSet(m, s.from)
		if err != nil {
			return o, err
		}
		for i, v := range m.FeedInputs() {
			if d := set.Inputs[i].Unwrap(); d != nil && d.Tensor != nil {
				o.Shapes[v.Name] = d.Tensor.Shape
			}
		}
	}
	return o, s.parseShapes(m, o.Shapes)
}

func (s *shapeFlags) parseDims(m *onnxfile.Model, dims map[string]int) error {
	known := dimNames(m)
	for _, flag := range s.dims {
		for part := range strings.SplitSeq(flag, ",") {
			i := strings.LastIndexAny(part, "=:")
			if i < 1 {
				return fault.New(fault.Usage, "--dim %q has no size", part).Hint("write --dim batch=1")
			}
			name, size := strings.TrimSpace(part[:i]), strings.TrimSpace(part[i+1:])
			n, err := strconv.Atoi(size)
			if err != nil || n < 0 {
				return fault.New(fault.Usage, "--dim %s: %q is not a size", name, size)
			}
			if _, ok := known[name]; !ok {
				return unknownName("dimension", name, keys(known))
			}
			dims[name] = n
		}
	}
	return nil
}

// dimNames are the model's open dimensions: named ones, and input:axis for
// those without a name.
func dimNames(m *onnxfile.Model) map[string]bool {
	names := map[string]bool{}
	for _, v := range m.FeedInputs() {
		for i, d := range v.Type.Shape {
			if d.N < 0 && d.Param != "" {
				names[d.Param] = true
			} else if d.N < 0 {
				names[v.Name+":"+strconv.Itoa(i)] = true
			}
		}
	}
	return names
}

func keys(m map[string]bool) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	sort.Strings(list)
	return list
}

func unknownName(what, name string, known []string) error {
	err := fault.New(fault.Usage, "the model has no %s %q", what, name)
	if n := nearest.Find(name, known); n != "" {
		return err.Hint("did you mean %q?", n)
	}
	if len(known) == 0 {
		return err.Hint("it has none that is open")
	}
	return err.Hint("it has: %s", strings.Join(known, ", "))
}

// parseShapes reads x:1x3x224x224 and its spellings elsewhere: x:1,3,224,224,
// x[1,3,224,224], x=[1x3x224x224], and a bare shape where there is one input.
func (s *shapeFlags) parseShapes(m *onnxfile.Model, shapes map[string][]int) error {
	var names []string
	for _, v := range m.FeedInputs() {
		names = append(names, v.Name)
	}
	for _, flag := range s.shapes {
		for _, part := range splitShapes(flag) {
			name, dims, err := parseShape(part)
			if err != nil {
				return err
			}
			if name == "" && len(names) == 1 {
				name = names[0]
			}
			if !containsString(names, name) {
				return unknownName("input", name, names)
			}
			shapes[name] = dims
		}
	}
	return nil
}

func containsString(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// splitShapes cuts at commas that end a shape: the next piece begins a name.
func splitShapes(flag string) []string {
	var parts []string
	for piece := range strings.SplitSeq(flag, ",") {
		bare := strings.Trim(piece, " []")
		if _, err := strconv.Atoi(bare); err == nil && len(parts) > 0 {
			parts[len(parts)-1] += "," + piece
			continue
		}
		parts = append(parts, piece)
	}
	return parts
}

func parseShape(part string) (name string, dims []int, err error) {
	text := strings.TrimSpace(part)
	bad := func() error {
		return fault.New(fault.Usage, "cannot read the shape %q", part).Hint("write --input-shapes x:1x3x224x224")
	}
	if strings.HasSuffix(text, "]") {
		i := strings.LastIndexByte(text, '[')
		if i < 0 {
			return "", nil, bad()
		}
		name, text = strings.TrimRight(text[:i], ":="), text[i+1:len(text)-1]
	} else if i := strings.LastIndexAny(text, ":="); i >= 0 {
		name, text = text[:i], text[i+1:]
	}
	if text == "" {
		return name, []int{}, nil
	}
	for d := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == 'x' || r == ',' || r == '*' || r == ' ' }) {
		n, err := strconv.Atoi(d)
		if err != nil || n < 0 {
			return "", nil, bad()
		}
		dims = append(dims, n)
	}
	if len(dims) == 0 {
		return "", nil, bad()
	}
	return name, dims, nil
}

// readers are the ways to read a model file, by the name that --reader takes.
var readers = map[string]func(path string) (*onnxfile.Model, error){
	"lathe":   func(path string) (*onnxfile.Model, error) { return onnxfile.Read(path, onnxfile.Options{}) },
	"onnx-go": onnxgo.Read,
}

// loadModel reads an ONNX file; a folder stands for the model.onnx in it.
func (f *factory) loadModel(path string) (*onnxfile.Model, error) {
	if isDir(path) {
		path = filepath.Join(path, "model.onnx")
	}
	m, err := readers[f.reader](path)
	if err == nil && m.Path == "" {
		m.Path = path
	}
	return m, err
}

// loadShaped reads an ONNX file and what the flags say of its shapes.
func (f *factory) loadShaped(path string, sh *shapeFlags) (*onnxfile.Model, onnx.Options, error) {
	m, err := f.loadModel(path)
	if err != nil {
		return nil, onnx.Options{}, err
	}
	o, err := sh.options(m)
	if err != nil {
		m.Close()
		return nil, o, err
	}
	return m, o, nil
}

// feedShape is the shape of an input under the flags; open dimensions that
// nothing binds are an error that names them.
func feedShape(v *ir.Value, o onnx.Options) ([]int, error) {
	shape, missing, err := onnx.BindShape(v, o)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, fault.New(fault.Usage, "the dimensions %s of input %q are not bound", strings.Join(missing, ", "), v.Name).
			Hint("give each a size: --dim %s=1, or --input-shapes", missing[0])
	}
	return shape, nil
}
