package cli

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnx"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/data"
)

// inputFlags say what a model is fed: files, a recorded data set, or seeded
// random values.
type inputFlags struct {
	files      []string
	preprocess string
	seed       uint64
}

func (in *inputFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&in.files, "input", "i", nil, "input file, or NAME=FILE; a .npz or a folder with input_0.pb, … gives all (default: random values)")
	f.StringVar(&in.preprocess, "preprocess", "", "recipe for images: "+strings.ReplaceAll(data.PreprocessHelp, "\n", " "))
	f.Uint64Var(&in.seed, "seed", 1, "seed of random values")
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// recordedBeside is the data set that lies beside a model, "" if there is none.
func recordedBeside(model string) string {
	dir := filepath.Join(filepath.Dir(model), "test_data_set_0")
	if _, err := os.Stat(filepath.Join(dir, "input_0.pb")); err != nil {
		return ""
	}
	return dir
}

// readBeside is read, with the data that was recorded beside the model where no
// other input and no other shape is asked for.
func (in *inputFlags) readBeside(f *factory, m *onnxfile.Model, sh *shapeFlags) (*conformance.Set, error) {
	from := *in
	if dir := recordedBeside(m.Path); len(in.files) == 0 && dir != "" && len(sh.dims)+len(sh.shapes) == 0 {
		from.files = []string{dir}
	}
	return from.read(f, m, sh)
}

// read makes a data set of inputs for a model.
func (in *inputFlags) read(f *factory, m *onnxfile.Model, sh *shapeFlags) (*conformance.Set, error) {
	recipe, err := in.recipe()
	if err != nil {
		return nil, err
	}
	o, err := sh.options(m)
	if err != nil {
		return nil, err
	}
	feeds := m.FeedInputs()
	given := make([]*ir.Data, len(feeds))
	next := 0
	for _, arg := range in.files {
		if next, err = in.one(arg, feeds, given, next, o, recipe); err != nil {
			return nil, err
		}
	}
	for i, v := range feeds {
		if given[i] != nil {
			continue
		}
		if len(in.files) > 0 {
			return nil, fault.New(fault.Usage, "input %q is not given", v.Name).Hint("add --input %s=FILE", v.Name)
		}
		shape, err := feedShape(v, o)
		if err != nil {
			return nil, err
		}
		if err := artifact.CheckRoom(0, []program.Port{{Name: v.Name, Type: v.Type.DType, Shape: shape}}); err != nil {
			return nil, err
		}
		t, err := data.Random(v.Type.DType, shape, in.seed, v.Name)
		if err != nil {
			return nil, fault.New(fault.BadModel, "input %q: %w", v.Name, err)
		}
		given[i] = ir.TensorData(t)
		f.Detailf("input %q: random %s, seed %d", v.Name, t, in.seed)
	}
	return &conformance.Set{Inputs: given}, nil
}

func (in *inputFlags) recipe() (*data.Preprocess, error) {
	if in.preprocess == "" {
		return nil, nil
	}
	return data.ParsePreprocess(in.preprocess)
}

// one reads one --input; next is the first input that has no value by position.
func (in *inputFlags) one(arg string, feeds []*ir.Value, given []*ir.Data, next int, o onnx.Options, recipe *data.Preprocess) (int, error) {
	name, path := splitInput(arg, feeds)
	if isDir(path) {
		for i, v := range feeds {
			d, err := onnxfile.ReadTensorPB(filepath.Join(path, "input_"+itoa(i)+".pb"), v.Type)
			if err != nil {
				return next, err
			}
			given[i] = d
		}
		return len(feeds), nil
	}
	for next < len(feeds) && given[next] != nil {
		next++
	}
	at := next
	if name != "" {
		at = indexOf(feeds, name)
	}
	var v *ir.Value
	if at < len(feeds) {
		v = feeds[at]
	}
	ts, err := data.Read(path, imageRecipe(v, o, recipe))
	if err != nil {
		return next, err
	}
	if strings.EqualFold(filepath.Ext(path), ".npz") && name == "" {
		return next, byName(path, ts, feeds, given)
	}
	if v == nil {
		return next, fault.New(fault.Usage, "the model has %d inputs, %s is one more", len(feeds), path)
	}
	t, err := fit(v, ts[0].Tensor, o)
	if err != nil {
		return next, fault.New(fault.BadModel, "input %q: %w", v.Name, err).InFile(path)
	}
	given[at] = ir.TensorData(t)
	return next, nil
}

// splitInput separates NAME=FILE where NAME is an input of the model.
func splitInput(arg string, feeds []*ir.Value) (name, path string) {
	for i := range arg {
		if arg[i] == '=' && indexOf(feeds, arg[:i]) < len(feeds) {
			return arg[:i], arg[i+1:]
		}
	}
	return "", arg
}

func indexOf(feeds []*ir.Value, name string) int {
	for i, v := range feeds {
		if v.Name == name {
			return i
		}
	}
	return len(feeds)
}

// imageRecipe completes the recipe by what the input's shape makes plain.
func imageRecipe(v *ir.Value, o onnx.Options, recipe *data.Preprocess) *data.Preprocess {
	if v == nil || v.Type.Form != ir.FormTensor {
		return recipe
	}
	shape := make([]int, len(v.Type.Shape))
	for i, d := range v.Type.Shape {
		shape[i] = max(d.N, 0)
	}
	if s, missing, err := onnx.BindShape(v, o); err == nil && len(missing) == 0 {
		shape = s
	}
	return recipe.For(v.Type.DType, shape)
}

// byName gives the arrays of an archive to the inputs of the same names; a
// single unnamed array goes to a single input.
func byName(path string, ts []data.Named, feeds []*ir.Value, given []*ir.Data) error {
	if len(ts) == 1 && len(feeds) == 1 {
		given[0] = ir.TensorData(ts[0].Tensor)
		return nil
	}
	for _, t := range ts {
		i := indexOf(feeds, t.Name)
		if i == len(feeds) {
			var names []string
			for _, v := range feeds {
				names = append(names, v.Name)
			}
			return fault.New(fault.BadModel, "%w", unknownName("input", t.Name, names)).InFile(path)
		}
		given[i] = ir.TensorData(t.Tensor)
	}
	return nil
}

// fit makes plain data agree with an input: whole numbers from a text or byte
// file become the input's type, a missing batch axis of 1 is added. Anything
// else that differs is left to be refused.
func fit(v *ir.Value, t *tensor.Tensor, o onnx.Options) (*tensor.Tensor, error) {
	if v.Type.Form != ir.FormTensor {
		return t, nil
	}
	if v.Type.HasRank && len(t.Shape) == len(v.Type.Shape)-1 && (v.Type.Shape[0].N == 1 || v.Type.Shape[0].N < 0) {
		t = t.Reshaped(append([]int{1}, t.Shape...)...)
	}
	want, missing, err := onnx.BindShape(v, onnx.Options{Dims: o.Dims, Shapes: map[string][]int{v.Name: t.Shape}})
	if err != nil {
		return nil, err
	}
	if len(missing) == 0 && tensor.Numel(want) != t.Len() {
		return nil, fault.New(fault.BadModel, "it is %s, the model wants %s", t, v.Type)
	}
	if t.DType != v.Type.DType {
		return nil, fault.New(fault.BadModel, "it is %s, the model wants %s", t, v.Type)
	}
	return t, nil
}
