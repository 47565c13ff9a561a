package conformance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
)

// Case is a folder with a model and at least one recorded data set.
type Case struct {
	// Name is the folder's path below the tree that was searched.
	Name  string
	Model string   // path of the model file
	Sets  []string // paths of the test_data_set_N folders, by N
}

// Set is one recorded run: the inputs that the model must be fed, by position,
// and the outputs that it must give.
type Set struct {
	Inputs, Outputs []*ir.Data
}

// Discover finds the cases below a folder, sorted by name.
func Discover(root string) ([]Case, error) {
	var cases []Case
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		c, ok, err := caseIn(path)
		if err != nil || !ok {
			return err
		}
		if c.Name, err = filepath.Rel(root, path); err != nil {
			return err
		}
		if c.Name == "." {
			c.Name = filepath.Base(path)
		}
		c.Name = filepath.ToSlash(c.Name)
		cases = append(cases, c)
		return fs.SkipDir
	})
	if err != nil {
		return nil, fault.New(fault.BadModel, "cannot search test cases: %w", err).InFile(root)
	}
	sort.Slice(cases, func(i, j int) bool { return cases[i].Name < cases[j].Name })
	return cases, nil
}

// caseIn looks at one folder: a single .onnx file beside data sets.
func caseIn(dir string) (Case, bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Case{}, false, err
	}
	var c Case
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir() && strings.HasPrefix(e.Name(), "test_data_set_"):
			c.Sets = append(c.Sets, p)
		case e.Name() == "model.onnx", c.Model == "" && strings.HasSuffix(e.Name(), ".onnx"):
			c.Model = p
		}
	}
	sort.Slice(c.Sets, func(i, j int) bool { return number(c.Sets[i]) < number(c.Sets[j]) })
	return c, c.Model != "" && len(c.Sets) > 0, nil
}

// number is the N of a name that ends in _N or _N.pb.
func number(path string) int {
	s := strings.TrimSuffix(filepath.Base(path), ".pb")
	n, err := strconv.Atoi(s[strings.LastIndexByte(s, '_')+1:])
	if err != nil {
		return -1
	}
	return n
}

// Load reads a model and replaces calls of its functions by their bodies.
func Load(path string) (*onnxfile.Model, error) {
	m, err := onnxfile.Read(path, onnxfile.Options{})
	if err != nil {
		return nil, err
	}
	if err := m.InlineFunctions(onnx.SameMeaning); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// ReadSet reads a data set of a model.
func ReadSet(m *onnxfile.Model, dir string) (*Set, error) {
	s := &Set{}
	var err error
	if s.Inputs, err = readAll(dir, "input", m.FeedInputs()); err != nil {
		return nil, err
	}
	if len(s.Inputs) == 0 && len(m.Graph.Inputs) > 0 {
		// Some cases record a value for inputs that have a default.
		s.Inputs, err = readAll(dir, "input", m.Graph.Inputs)
	}
	if err != nil {
		return nil, err
	}
	s.Outputs, err = readAll(dir, "output", m.Graph.Outputs)
	return s, err
}

func readAll(dir, kind string, vs []*ir.Value) ([]*ir.Data, error) {
	var out []*ir.Data
	for i, v := range vs {
		p := filepath.Join(dir, fmt.Sprintf("%s_%d.pb", kind, i))
		if _, err := os.Stat(p); err != nil {
			return nil, fault.New(fault.BadModel, "the data set lacks %s_%d.pb, recorded for %q", kind, i, v.Name).InFile(dir)
		}
		d, err := onnxfile.ReadTensorPB(p, v.Type)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}
