package safetensors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/fixture"
)

func check(t *testing.T, s weights.Store, x weights.Tensor, want map[string]fixture.Expect) {
	t.Helper()
	w, ok := want[x.Name]
	if !ok {
		t.Errorf("%s: no expectation of %s", x.File, x.Name)
		return
	}
	if x.DType != w.Type() || !slices.Equal(x.Shape, w.Shape) {
		t.Errorf("%s: %s is %s%v, want %s%v", x.File, x.Name, x.DType, x.Shape, w.DType, w.Shape)
	}
	if fixture.TensorSum(t, s, x) != w.SHA256 {
		t.Errorf("%s: %s has other bytes", x.File, x.Name)
	}
}

func TestFixtures(t *testing.T) {
	dir := fixture.Dir(t, "checkpoints/formats")
	s := fixture.Store(t, dir)
	var want map[string]fixture.Expect
	fixture.JSON(t, filepath.Join(dir, "misc.expect.json"), &want)
	f, err := OpenIn(s, "all_dtypes.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Tensors) < 13 || f.Metadata["note"] != "fixture" {
		t.Errorf("%d tensors, metadata %v", len(f.Tensors), f.Metadata)
	}
	for _, x := range f.Tensors {
		check(t, s, x, want)
	}
	sharded(t, s, "hf_sharded_safetensors/", filepath.Join(dir, "hf_sharded_safetensors", "expect.json"))
}

func sharded(t *testing.T, s weights.Store, prefix, expect string) {
	t.Helper()
	var want map[string]fixture.Expect
	fixture.JSON(t, expect, &want)
	raw, err := weights.ReadFile(s, prefix+IndexName, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	x, err := ParseIndex(raw)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range x.Files() {
		f, err := OpenIn(s, prefix+file)
		if err != nil {
			t.Fatal(err)
		}
		for _, y := range f.Tensors {
			check(t, s, y, want)
			if x.WeightMap[y.Name] != file {
				t.Errorf("%s is in %s, not %s", y.Name, file, x.WeightMap[y.Name])
			}
			seen++
		}
	}
	if seen != len(want) || seen != len(x.WeightMap) {
		t.Errorf("%d tensors, want %d", seen, len(want))
	}
	out, err := x.Marshal()
	if err != nil || !bytes.Equal(bytes.TrimSpace(out), bytes.TrimSpace(raw)) {
		t.Errorf("the index is written as\n%s\nwant\n%s (%v)", out, raw, err)
	}
}

// TestOracles compares the live optimizer state that was gathered when the
// reference checkpoints were saved with the manifests of the universal ones.
func TestOracles(t *testing.T) {
	compared := 0
	for _, name := range []string{"z1_dp2_fp32", "z1_dp2_two_groups", "z1_dp4_bf16", "z1_dp4_fp32_padding", "z1_dp2_bf16optimizer"} {
		dir := fixture.Dir(t, "checkpoints/"+name)
		s := fixture.Store(t, dir)
		var manifest map[string]fixture.ManifestFile
		fixture.JSON(t, filepath.Join(dir, "MANIFEST.json"), &manifest)
		want := map[string]fixture.Expect{}
		for file, m := range manifest {
			parts := strings.Split(file, "/")
			if n := len(parts); parts[0] == "universal_golden" && n == 5 && parts[2] == "zero" {
				want[parts[3]+"|"+strings.TrimSuffix(parts[4], ".pt")] = m.Tensors["param"]
			}
		}
		f, err := OpenIn(s, "oracle/oracle_mp_rank_00.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range f.Tensors {
			if _, ok := want[x.Name]; ok {
				check(t, s, x, want)
				compared++
			}
		}
	}
	if compared < 300 {
		t.Errorf("only %d tensors were compared", compared)
	}
}

func pack(t *testing.T, tensors []weights.Tensor, meta map[string]string, data func(i int) []byte) []byte {
	t.Helper()
	p, err := NewPlan(tensors, meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	b := make(fixture.Bytes, p.Size)
	if err := p.Write(b, func(i int) (io.ReaderAt, error) { return bytes.NewReader(data(i)), nil }); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWrite compares with a file laid out by hand after the reference
// implementation: metadata first, larger element types first, then names, the
// header padded with spaces to a multiple of eight.
func TestWrite(t *testing.T) {
	tensors := []weights.Tensor{
		{Name: "b", DType: tensor.U8, Shape: []int{3}},
		{Name: "z", DType: tensor.F32, Shape: []int{1, 2}},
		{Name: "a<\"é", DType: tensor.F32, Shape: []int{}},
		{Name: "i", DType: tensor.I64, Shape: []int{0}},
	}
	data := []string{"uuu", "8 bytes!", "four", ""}
	got := pack(t, tensors, map[string]string{"format": "pt"}, func(i int) []byte { return []byte(data[i]) })
	head := `{"__metadata__":{"format":"pt"},"i":{"dtype":"I64","shape":[0],"data_offsets":[0,0]},` +
		`"a<\"é":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"z":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]},` +
		`"b":{"dtype":"U8","shape":[3],"data_offsets":[12,15]}}`
	for len(head)%8 != 0 {
		head += " "
	}
	want := string(binary.LittleEndian.AppendUint64(nil, uint64(len(head)))) + head + "four8 bytes!uuu"
	if string(got) != want {
		t.Errorf("wrote\n%q\nwant\n%q", got, want)
	}
	f, err := Open(bytes.NewReader(got), int64(len(got)), "x")
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range tensors {
		y, ok := f.Find(x.Name)
		v, err := y.Load(bytes.NewReader(got))
		if !ok || err != nil || string(v.Bytes()) != data[i] || y.DType != x.DType {
			t.Errorf("%s: %v %v", x.Name, y, err)
		}
	}
	for _, bad := range [][]weights.Tensor{
		{{Name: "a", DType: tensor.F32}, {Name: "a", DType: tensor.F32}},
		{{Name: "__metadata__", DType: tensor.F32}},
		{{Name: "c", DType: tensor.C128}},
		{{Name: "\xff", DType: tensor.F32}},
		{{Name: "n", DType: tensor.F32, Shape: []int{-1}}},
	} {
		if _, err := NewPlan(bad, nil); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

// TestRefuses: one clear sentence for each kind of broken file.
func TestRefuses(t *testing.T) {
	one := `"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`
	cases := []struct{ head, data, want string }{
		{`{` + one + `}`, "abc", "truncated"},
		{`{` + one + `}`, "abcde", "belong to no tensor"},
		{`{` + one + `,"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}`, "abcd", "overlaps"},
		{`{` + one + `,"b":{"dtype":"U8","shape":[1],"data_offsets":[5,6]}}`, "abcdef", "belong to no tensor"},
		{`{` + one + `,` + one + `}`, "abcd", "twice"},
		{`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, "abcd", "takes 8 bytes"},
		{`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, "abcd", "negative"},
		{`{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`, "", "too many"},
		{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, "abcd", "no range"},
		{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}`, "abcd", "lacks"},
		{`{"a":{"dtype":"F32","shape":[1]}}`, "abcd", "lacks"},
		{`{"a":{"dtype":"F32","shape":null,"data_offsets":[0,4]}}`, "abcd", "lacks"},
		{`{"a":{"dtype":"F7","shape":[1],"data_offsets":[0,4]}}`, "abcd", `"F7"`},
		{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}`, "abcd", "unknown"},
		{`{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}`, "abcd", "shape"},
		{`{"__metadata__":{"a":1}}`, "", "not a string"},
		{`{"__metadata__":{"a":"1","a":"2"}}`, "", "twice"},
		{`[1]`, "", "begin with {"},
		{`{` + one, "abcd", "JSON"},
		{`{` + one + `} {}`, "abcd", "goes on"},
		{"{\"\xff\":1}", "", "UTF-8"},
	}
	for _, c := range cases {
		b := binary.LittleEndian.AppendUint64(nil, uint64(len(c.head)))
		b = append(append(b, c.head...), c.data...)
		_, err := Open(bytes.NewReader(b), int64(len(b)), "f")
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "f: ") {
			t.Errorf("%s: %v, want %q", c.head, err, c.want)
		}
	}
	for _, b := range [][]byte{nil, []byte("abc"), binary.LittleEndian.AppendUint64(nil, 1<<40), binary.LittleEndian.AppendUint64(nil, 99)} {
		if _, err := Open(bytes.NewReader(b), int64(len(b)), ""); err == nil {
			t.Errorf("%q is accepted", b)
		}
	}
	for _, x := range []string{`{}`, `{"weight_map":{"a":"../b"}}`, `{"weight_map":{"a":"/b"}}`, `{"weight_map":{"a":"b","a":"c"}}`, `{"weight_map":[]}`, `{"weight_map":{"a":1}}`, ``} {
		if _, err := ParseIndex([]byte(x)); err == nil {
			t.Errorf("index %s is accepted", x)
		}
	}
}

// TestSplit: as Hugging Face's shard_checkpoint does with a limit of 100 bytes.
func TestSplit(t *testing.T) {
	var tensors []weights.Tensor
	for i, n := range []int{40, 50, 20, 300, 10, 70, 30} {
		tensors = append(tensors, weights.Tensor{Name: fmt.Sprint(i), DType: tensor.U8, Shape: []int{n}})
	}
	shards, x, err := Split(tensors, 100, "model", "safetensors")
	if err != nil {
		t.Fatal(err)
	}
	// 40+50 | 300 alone | 20+10+70 | 30
	want := []string{"0 1", "3", "2 4 5", "6"}
	for i, s := range shards {
		var names []string
		for _, y := range s.Tensors {
			names = append(names, y.Name)
			if x.WeightMap[y.Name] != s.File {
				t.Errorf("%s is not indexed in %s", y.Name, s.File)
			}
		}
		if i >= len(want) || strings.Join(names, " ") != want[i] || s.File != fmt.Sprintf("model-%05d-of-00004.safetensors", i+1) {
			t.Errorf("shard %d is %s with %v", i, s.File, names)
		}
	}
	if x.Metadata["total_size"] != int64(520) {
		t.Errorf("total size %v", x.Metadata)
	}
	if shards, x, err = Split(tensors, 1000, "model", "safetensors"); err != nil || x != nil || len(shards) != 1 || shards[0].File != "model.safetensors" {
		t.Errorf("one file: %v %v %v", shards, x, err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	f.Add([]byte("\x35\x00\x00\x00\x00\x00\x00\x00" + `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}abcd`))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := Open(bytes.NewReader(b), int64(len(b)), "")
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without text")
			}
			return
		}
		for _, y := range x.Tensors {
			if _, err := y.Load(bytes.NewReader(b)); err != nil {
				t.Errorf("%s: %v", y.Name, err)
			}
		}
	})
}
