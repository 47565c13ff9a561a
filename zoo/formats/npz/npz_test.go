package npz

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/fixture"
)

// npy is a file by hand: magic, version 1.0, header length, header, data.
func npy(head, data string) []byte {
	return []byte(magic + "\x01\x00" + string([]byte{byte(len(head)), byte(len(head) >> 8)}) + head + data)
}

func TestNPY(t *testing.T) {
	// numpy.save(f, numpy.arange(6, dtype="<i2").reshape(2, 3, order="F")):
	// elements in memory 0 1 2 3 4 5 by columns, so rows are 0 2 4 and 1 3 5.
	b := npy("{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }   \n", "\x00\x00\x01\x00\x02\x00\x03\x00\x04\x00\x05\x00")
	f, err := Open(bytes.NewReader(b), int64(len(b)), "a.npy")
	if err != nil {
		t.Fatal(err)
	}
	x := f.Tensors[0]
	v, err := x.Load(bytes.NewReader(b))
	if err != nil || !slices.Equal(tensor.As[int16](v), []int16{0, 2, 4, 1, 3, 5}) || !slices.Equal(x.Stride, []int{1, 2}) {
		t.Errorf("%v %v %v", x, v, err)
	}
	for want, b := range map[string][]byte{
		"big-endian": npy("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", "abcd"),
		"objects":    npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "abcd"),
		"records":    npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "abcd"),
		"truncated":  npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "abcd"),
		"follow":     npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "abcde"),
		"too many":   npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", "abcd"),
		"broken":     npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "abcd"),
		"unknown":    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", "abcd"),
		"version":    []byte(magic + "\x09\x00\x00\x00\x00\x00"),
		"accepted":   []byte(magic + "\x02\x00\xff\xff\xff\x7f"),
		"too short":  []byte(magic),
		"neither":    []byte("abcdefgh"),
	} {
		if _, err := Open(bytes.NewReader(b), int64(len(b)), "f"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", b, err, want)
		}
	}
}

var arrays = []weights.Tensor{
	{Name: "w", DType: tensor.F32, Shape: []int{2, 3}},
	{Name: "layer/b", DType: tensor.F16, Shape: []int{4}},
	{Name: "s", DType: tensor.I64, Shape: []int{}},
	{Name: "none", DType: tensor.Bool, Shape: []int{0, 7}},
	{Name: "c", DType: tensor.C128, Shape: []int{1, 1}},
}

func arrayData(i int) []byte {
	return bytes.Repeat([]byte{byte(i + 1), 0x3c}, int(arrays[i].Bytes()+1)/2)[:arrays[i].Bytes()]
}

func pack(t *testing.T) []byte {
	t.Helper()
	p, err := NewPlan(arrays)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	b := make(fixture.Bytes, p.Size)
	if err := p.Write(b, func(i int) (io.ReaderAt, error) { return bytes.NewReader(arrayData(i)), nil }); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	b := pack(t)
	f, err := Open(bytes.NewReader(b), int64(len(b)), "x.npz")
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range f.Tensors {
		v, err := x.Load(bytes.NewReader(b))
		if err != nil || x.Name != arrays[i].Name || x.DType != arrays[i].DType || !slices.Equal(x.Shape, arrays[i].Shape) || !bytes.Equal(v.Bytes(), arrayData(i)) {
			t.Errorf("%v comes back as %v (%v)", arrays[i], x, err)
		}
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range z.File { // the standard library checks the CRCs
		r, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Errorf("%s: %v", e.Name, err)
		}
	}
	for n := range b {
		if _, err := Open(bytes.NewReader(b[:n]), int64(n), ""); err == nil {
			t.Fatalf("cut to %d bytes it is accepted", n)
		}
	}
	for _, bad := range [][]weights.Tensor{
		{{Name: "a", DType: tensor.F32}, {Name: "a", DType: tensor.F32}}, {{Name: "a", DType: tensor.BF16}}, {{Name: "../a", DType: tensor.F32}},
	} {
		if _, err := NewPlan(bad); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

// TestLarge: an array of 6 GiB needs zip64; its zeros are never written.
func TestLarge(t *testing.T) {
	p, err := NewPlan([]weights.Tensor{{Name: "big", DType: tensor.F32, Shape: []int{3 << 29}}, {Name: "after", DType: tensor.U8, Shape: []int{4}}})
	if err != nil {
		t.Fatal(err)
	}
	s := fixture.Store(t, t.TempDir())
	w, err := s.Create("big.npz", p.Size)
	if err != nil {
		t.Fatal(err)
	}
	fill := p.Begin(w)
	if err := fill.Zero(0, 0, p.Slots[0].Bytes); err != nil {
		t.Fatal(err)
	}
	if err := fill.WriteAt(1, []byte("four"), 0); err != nil {
		t.Fatal(err)
	}
	if err := fill.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := OpenIn(s, "big.npz")
	if err != nil || len(f.Tensors) != 2 || f.Tensors[0].Bytes() != 6<<30 {
		t.Fatalf("%v %v", f, err)
	}
	in, err := s.Open("big.npz")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if v, err := f.Tensors[1].Load(in); err != nil || string(v.Bytes()) != "four" {
		t.Errorf("%v %v", v, err)
	}
}

// TestNumPy lets NumPy read what we write, and reads what NumPy writes.
func TestNumPy(t *testing.T) {
	py := "/usr/bin/python3"
	if exec.Command(py, "-c", "import numpy").Run() != nil {
		t.Skip("SKIP: /usr/bin/python3 has no numpy here (Debian: apt-get install python3-numpy)")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ours.npz"), pack(t), 0o600); err != nil {
		t.Fatal(err)
	}
	script := `
import numpy as np, hashlib, sys
d = np.load(sys.argv[1] + "/ours.npz")
for k in d.files: print(k, d[k].dtype.str, d[k].shape, d[k].tobytes().hex())
r = np.random.RandomState(0)
a = {"f": r.randn(3, 5).astype("f4"), "t": r.randn(4, 3).T, "u": np.arange(7, dtype="u2"), "z": np.zeros((2, 0)), "c": np.array(1 + 2j), "b": np.array([True, False])}
np.savez(sys.argv[1] + "/theirs.npz", **a)
np.save(sys.argv[1] + "/theirs.npy", a["t"])
np.savez_compressed(sys.argv[1] + "/small.npz", **a)
for k, v in a.items(): print("sum", k, hashlib.sha256(np.ascontiguousarray(v).tobytes()).hexdigest())
`
	out, err := exec.Command(py, "-c", script, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for i, x := range arrays {
		line := fmt.Sprintf("%s %s ", x.Name, descrOf(x.DType))
		if !strings.Contains(string(out), line) || !strings.Contains(string(out), fmt.Sprintf(") %x\n", arrayData(i))) {
			t.Errorf("NumPy does not see %s:\n%s", x.Name, out)
		}
	}
	s := fixture.Store(t, dir)
	f, err := OpenIn(s, "theirs.npz")
	if err != nil {
		t.Fatal(err)
	}
	one, err := OpenIn(s, "theirs.npy")
	if err != nil {
		t.Fatal(err)
	}
	one.Tensors[0].Name = "t"
	for _, x := range append(f.Tensors, one.Tensors...) {
		if want := "sum " + x.Name + " " + fixture.TensorSum(t, s, x); !strings.Contains(string(out), want) {
			t.Errorf("%s has other bytes", x.Name)
		}
	}
	if len(f.Tensors) != 6 {
		t.Errorf("%d arrays", len(f.Tensors))
	}
	if _, err := OpenIn(s, "small.npz"); err == nil || !strings.Contains(err.Error(), "savez_compressed") {
		t.Errorf("compressed: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", "abcd"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := Open(bytes.NewReader(b), int64(len(b)), "")
		if err != nil {
			return
		}
		for _, y := range x.Tensors {
			if _, err := y.Load(bytes.NewReader(b)); err != nil {
				t.Errorf("%s: %v", y.Name, err)
			}
		}
	})
}
