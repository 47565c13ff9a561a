package torch

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestPythonPickles reads what Python's own pickle writes in protocols 0 to 5,
// and lets it load what we write.
func TestPythonPickles(t *testing.T) {
	py, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("SKIP: no python3 here")
	}
	out, err := exec.Command(py, filepath.Join("testdata", "pickles.py")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n := 0
	var hexes []string
	for line := range strings.Lines(string(out)) {
		proto, data, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			t.Fatalf("line %q", line)
		}
		raw, err := hex.DecodeString(data)
		if err != nil {
			t.Fatal(err)
		}
		v, err := Unpickle(raw, Options{Strict: true})
		if err != nil {
			t.Errorf("protocol %s: %v", proto, err)
			continue
		}
		n++
		for _, p := range []int{2, 4} {
			b, _, err := Pickle(v, p)
			if err != nil {
				t.Errorf("protocol %s: %v", proto, err)
				continue
			}
			hexes = append(hexes, hex.EncodeToString(b))
		}
	}
	if n != 6 {
		t.Errorf("%d pickles", n)
	}
	cmd := exec.Command(py, filepath.Join("testdata", "pickles.py"), "check")
	cmd.Stdin = strings.NewReader(strings.Join(hexes, "\n"))
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "12 equal\n" {
		t.Errorf("Python on ours: %v\n%s", err, out)
	}
}

// TestTorch2Records: the records that torch 2 adds to the zip, and an untyped
// storage read as bfloat16 and float8 (torch/serialization.py, _utils.py).
func TestTorch2Records(t *testing.T) {
	persid := "(X\x07\x00\x00\x00storagectorch.storage\nUntypedStorage\nX\x01\x00\x00\x000X\x06\x00\x00\x00cuda:1K\x04tQ"
	v3 := func(dtype, size string) string {
		return "ctorch._utils\n_rebuild_tensor_v3\n(" + persid + "K\x00K" + size + "\x85K\x01\x85\x89ccollections\nOrderedDict\n)Rctorch\n" + dtype + "\ntR"
	}
	b := zipOf(t, "m/data.pkl", "\x80\x02]("+v3("bfloat16", "\x02")+v3("float8_e4m3fn", "\x04")+"e.",
		"m/.format_version", "1", "m/.storage_alignment", "64", "m/byteorder", "little", "m/data/0", "\x80\x3f\x00\x40", "m/version", "3\n",
		"m/.data/serialization_id", "1234")
	f, err := decode(b, Options{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	items := f.Root.(*List).Items
	x, y := items[0].(*Tensor), items[1].(*Tensor)
	v, err := x.Load()
	if err != nil || v.DType != tensor.BF16 || v.Float(0) != 1 || v.Float(1) != 2 || x.Storage.Device != "cuda:1" {
		t.Errorf("bfloat16: %v %v", v, err)
	}
	if y.DType != tensor.F8E4M3FN || y.Storage != x.Storage || f.Prefix != "m" {
		t.Errorf("float8: %v", y)
	}
	if w := y.Ref("y"); w.Offset != x.Storage.Offset || w.Bytes() != 4 || w.Stride != nil {
		t.Errorf("place: %+v", w)
	}
}

// TestLegacyViews: before torch 0.4 a storage could be a part of another.
func TestLegacyViews(t *testing.T) {
	ref := func(view string) string {
		return "(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00rX\x03\x00\x00\x00cpuK\x04" + view + "tQ"
	}
	tensorOf := func(view, n string) string {
		return "ctorch._utils\n_rebuild_tensor\n(" + ref(view) + "K\x00K" + n + "\x85K\x01\x85tR"
	}
	part := "(X\x01\x00\x00\x00vK\x01K\x02t"
	file := func(obj, keys, data string) []byte {
		return []byte("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\x00\x00\x00little_endian\x88s." +
			"\x80\x02" + obj + ".\x80\x02" + keys + "." + data)
	}
	keys := "]X\x01\x00\x00\x00ra"
	data := string(binary.LittleEndian.AppendUint64(nil, 4)) + string(tensor.Of([]float32{10, 11, 12, 13}, 4).Bytes())
	f, err := decode(file("]("+tensorOf("N", "\x04")+tensorOf(part, "\x02")+"e", keys, data), Options{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := f.Root.(*List).Items[1].(*Tensor).Load()
	if err != nil || v.Float(0) != 11 || v.Float(1) != 12 || f.Format != Legacy {
		t.Errorf("view: %v %v", v, err)
	}
	for want, b := range map[string][]byte{
		"leaves its storage":   file(tensorOf("(X\x01\x00\x00\x00vK\x03K\x02t", "\x02"), keys, data),
		"used but not in":      file(tensorOf("N", "\x04"), "]", data),
		"listed but not used":  file("]", keys, data),
		"listed twice":         file(tensorOf("N", "\x04"), "](X\x01\x00\x00\x00rX\x01\x00\x00\x00re", data+data),
		"4 in the pickle":      file(tensorOf("N", "\x04"), keys, "\x05"+data[1:]),
		"bytes are missing":    file(tensorOf("N", "\x04"), keys, data[:len(data)-3]),
		"ends before storage":  file(tensorOf("N", "\x04"), keys, data[:5]),
		"is not a list":        file(tensorOf("N", "\x04"), "N", data),
		"magic number":         bytes.Replace(file("N", "]", ""), []byte("P\x19."), []byte("P\x18."), 1),
		"protocol 1002":        bytes.Replace(file("N", "]", ""), []byte("M\xe9\x03"), []byte("M\xea\x03"), 1),
		"big-endian":           bytes.Replace(file("N", "]", ""), []byte("\x88s."), []byte("\x89s."), 1),
		"the list of storages": file("N", "", ""),
	} {
		if _, err := decode(b, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
