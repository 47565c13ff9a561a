package torch

import (
	"encoding/json"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/fixture"
)

// TestManifests reads every torch file of every reference checkpoint and
// compares all tensors and scalars with what torch found.
func TestManifests(t *testing.T) {
	root := fixture.Dir(t, "checkpoints")
	cases, err := filepath.Glob(filepath.Join(root, "*", "MANIFEST.json"))
	if err != nil || len(cases) == 0 {
		t.Fatalf("no MANIFEST.json below %s (%v)", root, err)
	}
	files, tensors, scalars := 0, 0, 0
	for _, manifest := range cases {
		dir := filepath.Dir(manifest)
		s := fixture.Store(t, dir)
		var m map[string]fixture.ManifestFile
		fixture.JSON(t, manifest, &m)
		for name, want := range m {
			f, c, err := OpenIn(s, name, Options{Strict: true})
			if err != nil {
				t.Errorf("%s: %v", filepath.Base(dir), err)
				continue
			}
			files++
			tensors += compareTensors(t, filepath.Base(dir)+"/"+name, f, want)
			scalars += compareScalars(t, filepath.Base(dir)+"/"+name, f, want)
			for _, st := range f.Storages {
				b := make([]byte, st.Bytes())
				if err := weights.ReadFull(st.Data, b, 0); err != nil || !st.HasSum || weights.CRC(b) != st.Sum {
					t.Errorf("%s: storage %s: the CRC is not that of the file (%v)", name, st.Key, err)
				}
			}
			if err := f.VerifySums(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			c.Close()
		}
	}
	t.Logf("%d files, %d tensors, %d scalars", files, tensors, scalars)
	if files < 1000 || tensors < 3000 || scalars < 1000 {
		t.Errorf("only %d files, %d tensors and %d scalars were compared", files, tensors, scalars)
	}
}

func compareTensors(t *testing.T, name string, f *File, want fixture.ManifestFile) int {
	t.Helper()
	got, err := Tensors(f.Root)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return 0
	}
	if len(got) != len(want.Tensors) {
		t.Errorf("%s: %d tensors, want %d", name, len(got), len(want.Tensors))
	}
	for _, g := range got {
		w, ok := want.Tensors[g.Path]
		if !ok {
			t.Errorf("%s: tensor %s is not in the manifest", name, g.Path)
			continue
		}
		if DTypeName(g.Tensor.DType) != w.DType || !slices.Equal(g.Tensor.Shape, w.Shape) || sum(t, g.Tensor) != w.SHA256 {
			t.Errorf("%s: %s is %s%v, want %s%v, or its bytes differ", name, g.Path, DTypeName(g.Tensor.DType), g.Tensor.Shape, w.DType, w.Shape)
		}
	}
	return len(got)
}

func compareScalars(t *testing.T, name string, f *File, want fixture.ManifestFile) int {
	t.Helper()
	got := map[string]Value{}
	collectScalars(f.Root, "", got)
	n := 0
	for path, raw := range want.Scalars {
		v, ok := got[path]
		if !ok {
			t.Errorf("%s: %s is missing", name, path)
			continue
		}
		if g := scalarJSON(v); !sameJSON(g, string(raw)) {
			t.Errorf("%s: %s is %s, want %s", name, path, g, raw)
		}
		n++
	}
	return n
}

// collectScalars lists every value that is no tensor under its path.
func collectScalars(v Value, path string, out map[string]Value) {
	out[path] = v
	switch x := v.(type) {
	case *Dict:
		for _, p := range x.Pairs() {
			collectScalars(p.Value, join(path, KeyString(p.Key)), out)
		}
	case *List:
		for i, y := range x.Items {
			collectScalars(y, join(path, fmt.Sprint(i)), out)
		}
	case *Tuple:
		for i, y := range x.Items {
			collectScalars(y, join(path, fmt.Sprint(i)), out)
		}
	}
}

// zeroStages are the members of DeepSpeed's ZeroStageEnum.
var zeroStages = map[string]string{"disabled": "0", "optimizer_states": "1", "gradients": "2", "weights": "3"}

// scalarJSON writes a value as the manifests do.
func scalarJSON(v Value) string {
	switch x := v.(type) {
	case nil:
		return "null"
	case Size:
		b, _ := json.Marshal([]int(x))
		return string(b)
	case *big.Int:
		return x.String()
	case *Set:
		return `"<builtins.set>"`
	case *Object:
		switch {
		case x.Is("builtins", "getattr"):
			return zeroStages[x.Args.Items[1].(string)]
		case x.Is("deepspeed.utils.tensor_fragment", "fragment_address"):
			n, _ := x.Attr("numel")
			s, _ := x.Attr("start")
			return fmt.Sprintf(`{"numel": %d, "start": %d}`, n, s)
		case x.Is("deepspeed.checkpoint.universal_checkpoint", "SubparamShape"):
			return scalarJSON(x.State)
		}
		return fmt.Sprintf("%q", "<"+x.Class.String()+">")
	case *Dict:
		var parts []string
		for _, p := range x.Pairs() {
			parts = append(parts, fmt.Sprintf("%q: %s", KeyString(p.Key), scalarJSON(p.Value)))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case *List, *Tuple:
		var parts []string
		for _, y := range itemsOf(x) {
			parts = append(parts, scalarJSON(y))
		}
		return "[" + strings.Join(parts, ",") + "]"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func sameJSON(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return a == b
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return string(p) == string(q)
}

// TestContainers reads the container fixtures: zip with pickle protocols 2 to
// 5 and the legacy container, with views, every dtype and odd objects.
func TestContainers(t *testing.T) {
	dir := fixture.Dir(t, "checkpoints/formats")
	s := fixture.Store(t, dir)
	var want map[string]fixture.Expect
	fixture.JSON(t, filepath.Join(dir, "misc.expect.json"), &want)
	for _, name := range []string{"misc_zip_proto2.pt", "misc_zip_proto3.pt", "misc_zip_proto4.pt", "misc_zip_proto5.pt", "misc_legacy_proto2.pt"} {
		f := openFile(t, s, name)
		checkExpected(t, name, f, want)
		checkMisc(t, name, f)
		if len(f.Unknown) > 0 {
			t.Errorf("%s: unknown classes %v", name, f.Unknown)
		}
	}
	for _, part := range []string{"pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"} {
		var want map[string]fixture.Expect
		fixture.JSON(t, filepath.Join(dir, "hf_sharded_bin", "expect.json"), &want)
		f := openFile(t, s, "hf_sharded_bin/"+part)
		d := f.Root.(*Dict)
		if d.Len() == 0 {
			t.Errorf("%s is empty", part)
		}
		for _, p := range d.Pairs() {
			checkTensor(t, part, p.Key.(string), p.Value, want)
		}
	}
	if f := openFile(t, s, "empty_dict.pt"); f.Root.(*Dict).Len() != 0 || len(f.Storages) != 0 {
		t.Error("empty_dict.pt is not empty")
	}
	if x, ok := openFile(t, s, "single_tensor.pt").Root.(*Tensor); !ok || len(sum(t, x)) != 64 {
		t.Error("single_tensor.pt is not a tensor")
	}
}

func checkExpected(t *testing.T, name string, f *File, want map[string]fixture.Expect) {
	t.Helper()
	d := f.Root.(*Dict)
	for key := range want {
		v, ok := At(d, "tensors", key)
		if !ok {
			v, _ = d.Get(key)
		}
		checkTensor(t, name, key, v, want)
	}
}

func checkTensor(t *testing.T, file, key string, v Value, want map[string]fixture.Expect) {
	t.Helper()
	w, ok := want[key]
	x, isTensor := v.(*Tensor)
	if !ok || !isTensor {
		t.Errorf("%s: %s is %T, expectation known: %v", file, key, v, ok)
		return
	}
	if DTypeName(x.DType) != w.DType || !slices.Equal(x.Shape, w.Shape) || !slices.Equal(x.Stride, w.Stride) || x.StorageOffset != w.StorageOffset {
		t.Errorf("%s: %s is %s %v %v at %d, want %+v", file, key, DTypeName(x.DType), x.Shape, x.Stride, x.StorageOffset, w)
	}
	if got := sum(t, x); got != w.SHA256 {
		t.Errorf("%s: %s has other bytes", file, key)
	}
}

func checkMisc(t *testing.T, name string, f *File) {
	t.Helper()
	a, _ := At(f.Root, "tied_a")
	b, _ := At(f.Root, "tied_b")
	if a == nil || a != b {
		t.Errorf("%s: tied_a and tied_b are not the same tensor", name)
	}
	flip, _ := At(f.Root, "tensors", "transposed")
	rows, _ := At(f.Root, "tensors", "view_rows")
	if flip.(*Tensor).Storage != rows.(*Tensor).Storage {
		t.Errorf("%s: a view does not share its storage", name)
	}
	if p, _ := At(f.Root, "param"); p.(*Tensor).Param == nil {
		t.Errorf("%s: param is not a Parameter", name)
	}
	// What torch.load prints for the other entries.
	want := map[string]Value{
		"none": nil, "flt": 1.5, "neg": int64(-5), "long": int64(1) << 40,
		"by": Bytes("\x00\xffbytes"), "u": "unicode é中", "cplx": complex(1, 2),
	}
	for k, w := range want {
		if v, ok := At(f.Root, k); !ok || v != w {
			t.Errorf("%s: %s is %v, want %v", name, k, v, w)
		}
	}
	shown := map[string]string{
		"size": "[2,3]", "big": "1180591620717411303424", "t": "[1,2,[3]]",
		"nested": `[{"x": [1,{"y": 2}]}]`,
	}
	for k, w := range shown {
		if v, _ := At(f.Root, k); scalarJSON(v) != w {
			t.Errorf("%s: %s is %s, want %s", name, k, scalarJSON(v), w)
		}
	}
	if v, _ := At(f.Root, "np_scalar"); v != nil {
		if x, ok := Scalar(v); !ok || x != 2.5 {
			t.Errorf("%s: np_scalar is %v, want 2.5", name, x)
		}
	}
	if v, _ := At(f.Root, "ns", "lr"); v != 0.001 {
		t.Errorf("%s: ns.lr is %v, want 0.001", name, v)
	}
	if v, _ := At(f.Root, "dtype"); v == nil || v.(*Class).String() != "torch.bfloat16" {
		t.Errorf("%s: dtype is %v", name, v)
	}
	for k, frozen := range map[string]bool{"s": false, "fs": true} {
		v, _ := At(f.Root, k)
		if set, ok := v.(*Set); !ok || set.Frozen != frozen || len(set.Items) == 0 || set.Items[0] != Value(int64(1)) {
			t.Errorf("%s: %s is %v", name, k, v)
		}
	}
}
