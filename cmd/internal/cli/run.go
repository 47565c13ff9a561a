package cli

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/atomicfile"
	"github.com/lathe-ml/lathe/zoo/data"
)

type runOptions struct {
	*factory
	model   string
	backend string
	shapes  shapeFlags
	inputs  inputFlags
	engine  engineOptions
	labels  string
	top     int
	softmax bool
	out     string
	force   bool
}

func newRunCmd(f *factory) *cobra.Command {
	o := &runOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "run MODEL|ARTIFACT",
		Short: "Run a model or an artifact on files and print or save what it gives",
		Long: `run feeds a model, or an artifact that lathe compile made, with tensors (.npy, .npz, .pb), images or random values, and
prints a summary of each output, or the best classes if a label file is given.`,
		Example: `  lathe run model.onnx --input x.npy -o y.npz
  lathe run mnist.onnx -i digit.png --preprocess gray,invert --labels digits.txt
  lathe run mobilenet.onnx -i cat.jpg --preprocess resize=256,crop=224,scale=1/255 --labels imagenet.txt --top 5
  lathe run model.onnx --dim N=4 --seed 7 --json
  lathe run model.onnx --input x.npy --cpu x86-64-v3
  lathe run artifact/ --input x.npy`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			o.model = a[0]
			ctx, stop := f.context(cmd)
			defer stop()
			return o.run(ctx)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&o.backend, "backend", defaultBackend, "what runs it, for a model: "+backendHelp())
	fl.StringVar(&o.labels, "labels", "", "file of class names, one per line: name the best classes of the first output")
	fl.IntVar(&o.top, "top", 5, "how many classes are named")
	fl.BoolVar(&o.softmax, "softmax", false, "turn the first output into probabilities before classes are named")
	fl.StringVarP(&o.out, "output", "o", "", "write the outputs to a .npz, .npy or .pb file, or as output_K.pb into a folder")
	fl.BoolVar(&o.force, "force", false, "replace an output that exists")
	fl.StringVar(&o.engine.peer, "peer", "", "path of ONNX Runtime's library, for --backend peer")
	o.engine.registerThreads(fl)
	o.engine.register(fl)
	o.shapes.register(cmd)
	o.inputs.register(cmd)
	return cmd
}

// outputInfo is an output in --json.
type outputInfo struct {
	Name   string       `json:"name"`
	DType  string       `json:"dtype"`
	Shape  []int        `json:"shape"`
	Min    *float64     `json:"min,omitempty"`
	Max    *float64     `json:"max,omitempty"`
	Mean   *float64     `json:"mean,omitempty"`
	Values []any        `json:"values,omitempty"`
	Top    []data.Score `json:"top,omitempty"`
}

func (o *runOptions) run(ctx context.Context) error {
	var labels []string
	if o.labels != "" {
		var err error
		if labels, err = data.ReadLabels(o.labels); err != nil {
			return err
		}
	}
	if err := o.checkOut(); err != nil {
		return err
	}
	if err := o.engine.settle(o.model); err != nil {
		return err
	}
	e, m, err := o.openSubject(o.model, o.resolveBackend(o.backend), o.engine)
	if err != nil {
		return err
	}
	defer m.Close()
	set, err := o.inputs.read(o.factory, m, &o.shapes)
	if err != nil {
		return err
	}
	out, err := e.runner(o.factory, o.engine)(ctx, m, set)
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := o.save(m, out.Data); err != nil {
			return err
		}
	}
	return o.print(m, out.Data, labels)
}

// checkOut refuses before any work what could not be written after it.
func (o *runOptions) checkOut() error {
	if o.out == "" {
		return nil
	}
	err := checkOutput(o.out, o.force, append(o.inputs.paths(), o.model)...)
	if err == nil && filepath.Ext(o.out) == "" {
		err = replaceableFolder(o.out, holdsOutputs)
	}
	return err
}

func (o *runOptions) save(m *onnxfile.Model, out []*ir.Data) error {
	var ts []data.Named
	for i, d := range out {
		if u := d.Unwrap(); u != nil && u.Tensor != nil {
			ts = append(ts, data.Named{Name: m.Graph.Outputs[i].Name, Tensor: u.Tensor})
			continue
		}
		return fault.New(fault.Unsupported, "output %q is %s, only tensors can be saved", m.Graph.Outputs[i].Name, d.Type())
	}
	if filepath.Ext(o.out) != "" {
		return data.Write(o.out, ts)
	}
	return atomicfile.WriteDir(o.out, o.force, func(tmp string) error { return data.WriteSet(tmp, "output", ts) })
}

func (o *runOptions) print(m *onnxfile.Model, out []*ir.Data, labels []string) error {
	var infos []outputInfo
	for i, d := range out {
		info := outputInfo{Name: m.Graph.Outputs[i].Name, DType: d.Type().String(), Shape: []int{}}
		if u := d.Unwrap(); u != nil && u.Tensor != nil {
			describe(&info, u.Tensor)
			if i == 0 && labels != nil {
				info.Top = o.classes(u.Tensor, labels)
			}
		}
		infos = append(infos, info)
	}
	if o.json {
		return o.JSON(infos)
	}
	if labels != nil && len(infos) > 0 {
		t := o.Table(">class", "label", ">score")
		for _, s := range infos[0].Top {
			t.Row(itoa(s.Class), s.Label, strconv.FormatFloat(s.Score, 'g', 5, 64))
		}
		t.Print()
		return nil
	}
	t := o.Table("output", "type", "shape", ">min", ">max", ">mean", "values")
	num := func(v *float64) string {
		if v == nil {
			return ""
		}
		return strconv.FormatFloat(*v, 'g', 6, 64)
	}
	for _, x := range infos {
		var vals []string
		for _, v := range x.Values {
			vals = append(vals, fmt.Sprint(v))
		}
		t.Row(x.Name, x.DType, tensor.ShapeString(x.Shape), num(x.Min), num(x.Max), num(x.Mean), strings.Join(vals, " "))
	}
	t.Print()
	return nil
}

// shown is how many values of an output are printed.
const shown = 10

func describe(info *outputInfo, t *tensor.Tensor) {
	info.DType, info.Shape = t.DType.ONNX(), t.Shape
	n := t.Len()
	for i := range min(n, shown) {
		switch {
		case t.DType == tensor.String:
			info.Values = append(info.Values, t.Strings()[i])
		case t.DType.IsFloat():
			info.Values = append(info.Values, jsonFloat(t.Float(i), t.DType))
		case t.DType == tensor.Bool:
			info.Values = append(info.Values, t.Int(i) != 0)
		case t.DType.IsInteger():
			info.Values = append(info.Values, t.Int(i))
		}
	}
	if n == 0 || !t.DType.IsNumeric() {
		return
	}
	lo, hi, sum := math.Inf(1), math.Inf(-1), 0.0
	for i := range n {
		v := t.Float(i)
		lo, hi, sum = min(lo, v), max(hi, v), sum+v
	}
	mean := sum / float64(n)
	if !math.IsNaN(mean) && !math.IsInf(mean, 0) {
		info.Min, info.Max, info.Mean = &lo, &hi, &mean
	}
}

// jsonFloat keeps the digits that the type has; what JSON cannot say as a
// number is text.
func jsonFloat(v float64, d tensor.DType) any {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	if d == tensor.F64 {
		return v
	}
	return float32(v)
}

// classes names the best of the last axis of the first row.
func (o *runOptions) classes(t *tensor.Tensor, labels []string) []data.Score {
	row := t
	if n := len(t.Shape); n > 1 && t.Len() > 0 {
		width := 1
		for i := n - 1; i >= 0 && width == 1; i-- {
			width = t.Shape[i]
		}
		row = tensor.New(tensor.F64, width)
		for i := range width {
			row.SetFloat(i, t.Float(i))
		}
	}
	if o.softmax {
		row = softmax(row)
	}
	return data.Top(row, labels, o.top)
}

func softmax(row *tensor.Tensor) *tensor.Tensor {
	out := tensor.New(tensor.F64, row.Len())
	top := math.Inf(-1)
	for i := range row.Len() {
		top = max(top, row.Float(i))
	}
	sum := 0.0
	for i := range row.Len() {
		e := math.Exp(row.Float(i) - top)
		out.SetFloat(i, e)
		sum += e
	}
	for i := range row.Len() {
		out.SetFloat(i, out.Float(i)/sum)
	}
	return out
}
