package torch

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/fixture"
)

// torchFiles lists every torch file of the reference checkpoints.
func torchFiles(t testing.TB) (root string, names []string) {
	root = fixture.Dir(t, "checkpoints")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ext := filepath.Ext(p); !d.IsDir() && (ext == ".pt" || ext == ".bin") {
			rel, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			names = append(names, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return root, names
}

// TestRoundTrip writes every reference file again: the values, what they share
// and all bytes must come back, and other readers of zip must agree.
func TestRoundTrip(t *testing.T) {
	root, names := torchFiles(t)
	s := fixture.Store(t, root)
	for _, name := range names {
		f, c, err := OpenIn(s, name, Options{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := encode(f.Root, WriteOptions{Prefix: "x"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		g, err := decode(b, Options{})
		if err != nil {
			t.Fatalf("%s: written again: %v", name, err)
		}
		if diff := difference(f.Root, g.Root); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if err := g.VerifySums(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checkZip(t, name, b, g)
		c.Close()
	}
	t.Logf("%d files", len(names))
}

// checkZip reads a file with the standard library, which checks the CRCs.
func checkZip(t *testing.T, name string, b []byte, f *File) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(z.File) != len(f.records) {
		t.Errorf("%s: %d zip entries, want %d", name, len(z.File), len(f.records))
	}
	for i, e := range z.File {
		off, err := e.DataOffset()
		if err != nil || off != f.records[i].offset || off%alignment != 0 {
			t.Errorf("%s: %s is at %d (%v), want %d, a multiple of 64", name, e.Name, off, err, f.records[i].offset)
		}
		r, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Errorf("%s: %s: %v", name, e.Name, err)
		}
	}
}

// odd is a value of every kind, with sharing.
func odd() Value {
	st := NewStorage(tensor.F32, 6, bytes.NewReader([]byte("abcdefghijklmnopqrstuvwx")))
	x := ViewOf(st, []int{2, 3}, 0)
	flip := &Tensor{DType: tensor.F32, Shape: []int{3, 2}, Stride: []int{1, 3}, Storage: st}
	p := *x
	p.Param = &Param{RequiresGrad: true}
	p2 := *x
	p2.Param = &Param{}
	shared := NewList("a", "a", strings.Repeat("long ", 2000), strings.Repeat("long ", 2000))
	many := NewList()
	for i := range 2500 {
		many.Items = append(many.Items, int64(i*i*i-1000000000))
	}
	huge := new(big.Int).Lsh(big.NewInt(-5), 3000)
	od := NewOrderedDict("k", shared, int64(3), nil)
	od.Attrs = NewDict("_metadata", NewDict("", NewDict("version", int64(1))))
	return NewDict(
		"x", x, "again", x, "flip", flip, "p", &p, "p2", &p2,
		"ints", NewList(int64(0), int64(255), int64(256), int64(65535), int64(65536), int64(-1), int64(1)<<31, -int64(1)<<31, int64(-128), int64(-129),
			int64(1)<<40, -int64(1)<<40, int64(1)<<62, -int64(1)<<63, new(big.Int).Lsh(big.NewInt(1), 63), new(big.Int).Lsh(big.NewInt(-1), 71), huge),
		"floats", NewTuple(1.5, math.Copysign(0, -1), 1e300, 2.0, 3.0), "none", nil, "yes", true, "no", false,
		"bytes", Bytes("\x00\xff\x80z"), "nobytes", Bytes(""), "bytearray", &Object{Class: &Class{"builtins", "bytearray"}, Args: NewTuple(Bytes("q"))},
		"size", Size{4, 5, 6, 7}, "size0", Size{}, "complex", complex(1, -2), "dtype", DTypeClass(tensor.BF16),
		"set", &Set{Items: []Value{int64(3), "s"}}, "frozen", &Set{Frozen: true, Items: []Value{NewTuple(int64(1), "t")}},
		"shared", shared, "od", od, "many", many, int64(7), "int key", NewTuple(int64(1), "a"), "tuple key", true, "bool key",
		"empty", NewList(NewTuple(), NewList(), NewDict(), NewOrderedDict()),
		"ns", NewObject("argparse", "Namespace", NewDict("a", int64(1), "shared", shared)),
		"dd", &Object{Class: &Class{"collections", "defaultdict"}, Args: NewTuple(&Class{"builtins", "list"}), Pairs: []Pair{{"k", NewList(int64(1))}}},
		"deque", &Object{Class: &Class{"collections", "deque"}, Args: NewTuple(), Items: []Value{int64(1), int64(2)}},
		"unicode", "é中\U0001F600\n\"'\\", "scalar", NewTensor(tensor.I64, []int{}, bytes.NewReader(make([]byte, 8))),
		"none1", NewTensor(tensor.BF16, []int{0, 3}, bytes.NewReader(nil)),
	)
}

func TestOddValues(t *testing.T) {
	root := odd()
	for _, opt := range []WriteOptions{{}, {Prefix: "step_3", ByteOrder: true}} {
		b, err := encode(root, opt)
		if err != nil {
			t.Fatal(err)
		}
		f, err := decode(b, Options{Strict: true})
		if err != nil {
			t.Fatal(err)
		}
		if diff := difference(root, f.Root); diff != "" {
			t.Error(diff)
		}
		again, err := encode(f.Root, opt)
		if err != nil || !bytes.Equal(b, again) {
			t.Errorf("writing what was read gives another file (%v)", err)
		}
	}
	// torch 2 only: attributes of parameters and tensors.
	x := NewTensor(tensor.F32, []int{1}, strings.NewReader("four"))
	p, w := *x, *x
	p.Param = &Param{State: NewDict("tag", int64(1)), HasState: true}
	w.Wrap = &Wrap{Type: &Class{"torch", "Tensor"}, State: NewDict("tag", int64(2))}
	attrs := NewList(&p, &w, x)
	if b, err := encode(attrs, WriteOptions{}); err != nil {
		t.Error(err)
	} else if f, err := decode(b, Options{Strict: true}); err != nil || difference(attrs, f.Root) != "" {
		t.Errorf("attributes of tensors: %v %s", err, difference(attrs, f.Root))
	}
	// Protocol 4, as in the metadata of distributed checkpoints.
	b, _, err := Pickle(root, 4)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Unpickle(b, Options{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := difference(root, back); diff != "" {
		t.Error(diff)
	}
	kw := NewDict("nested", &Object{Class: &Class{"m", "Outer.Inner"}, Make: NewObjEx, Args: NewTuple(), Kwargs: NewDict("a", int64(1))})
	if b, err = encode(kw, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if f, err := decode(b, Options{}); err != nil || difference(kw, f.Root) != "" || f.Protocol != 4 || len(f.Unknown) != 1 {
		t.Errorf("nested class with keywords: %v", err)
	}
}

// TestNewDTypes: element types without a storage class use bytes and
// _rebuild_tensor_v3.
func TestNewDTypes(t *testing.T) {
	d := NewDict()
	for _, dt := range []tensor.DType{tensor.U16, tensor.U32, tensor.U64, tensor.F8E4M3FN, tensor.F8E5M2, tensor.F8E8M0} {
		d.Set(dt.String(), NewTensor(dt, []int{3, 2}, bytes.NewReader(bytes.Repeat([]byte{byte(dt)}, 48))))
	}
	b, err := encode(d, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := decode(b, Options{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Pairs() {
		v, _ := At(f.Root, p.Key)
		x, y := p.Value.(*Tensor), v.(*Tensor)
		if x.DType != y.DType || !y.Storage.Untyped || sum(t, x) != sum(t, y) {
			t.Errorf("%s comes back as %s", p.Key, y.DType)
		}
	}
}

// TestLargeFiles lays out files beyond 4 GiB and 65535 entries, whose bytes are
// never in memory, and reads them with the standard library too.
func TestLargeFiles(t *testing.T) {
	big := NewTensor(tensor.F32, []int{5 << 28}, nil) // 5 GiB
	small := NewTensor(tensor.F32, []int{2}, nil)
	l, err := NewPlan(NewDict("big", big, "small", small, "big2", NewTensor(tensor.U8, []int{1 << 32}, nil)), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := &sparse{size: l.Size}
	fill := l.Begin(w)
	for i, s := range l.Slots {
		if i == l.Slot(small.Storage) {
			err = fill.WriteAt(i, []byte("8 bytes."), 0)
		} else {
			err = fill.Zero(i, 0, s.Bytes)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := fill.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := Open(w, w.size, Options{})
	if err != nil {
		t.Fatal(err)
	}
	v, _ := At(f.Root, "small")
	got := make([]byte, 8)
	if _, err := v.(*Tensor).Reader().ReadAt(got, 0); err != nil || string(got) != "8 bytes." {
		t.Errorf("read %q (%v)", got, err)
	}
	z, err := zip.NewReader(w, w.size)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range z.File {
		off, err := e.DataOffset()
		if err != nil || off != f.records[i].offset || e.CRC32 != f.records[i].crc || int64(e.UncompressedSize64) != f.records[i].size {
			t.Errorf("archive/zip sees %s at %d with %d bytes (%v)", e.Name, off, e.UncompressedSize64, err)
		}
	}
	many := NewList()
	for range 70000 {
		many.Items = append(many.Items, NewTensor(tensor.U8, []int{1}, strings.NewReader("x")))
	}
	b, err := encode(many, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if f, err = decode(b, Options{}); err != nil || len(f.Storages) != 70000 {
		t.Fatalf("70000 storages: %v", err)
	}
	if z, err := zip.NewReader(bytes.NewReader(b), int64(len(b))); err != nil || len(z.File) != 70002 {
		t.Errorf("archive/zip: %v", err)
	}
}

// sparse is a file of which only the written parts are kept.
type sparse struct {
	size  int64
	mu    sync.Mutex
	parts []weights.Part
}

func (s *sparse) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts = append(s.parts, weights.Part{Offset: off, Data: bytes.Clone(p)})
	return len(p), nil
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), s.size-off))
	clear(p[:n])
	for _, x := range s.parts {
		if lo, hi := max(off, x.Offset), min(off+int64(n), x.Offset+int64(len(x.Data))); lo < hi {
			copy(p[lo-off:hi-off], x.Data[lo-x.Offset:])
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// TestParallelFill writes a file in pieces, in random order, from several
// goroutines: the file must equal the one written in order.
func TestParallelFill(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	root := NewDict()
	var data [][]byte
	for i := range 5 {
		b := make([]byte, 4*(1000+rng.IntN(50000)))
		for k := range b {
			b[k] = byte(rng.Uint32())
		}
		clear(b[:len(b)/3])
		data = append(data, b)
		root.Set(fmt.Sprint(i), NewTensor(tensor.F32, []int{len(b) / 4}, bytes.NewReader(b)))
	}
	want, err := encode(root, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewPlan(root, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	type piece struct {
		slot   int
		lo, hi int
	}
	var pieces []piece
	for i, b := range data {
		for lo := 0; lo < len(b); {
			hi := min(len(b), lo+1+rng.IntN(5000))
			pieces = append(pieces, piece{i, lo, hi})
			lo = hi
		}
	}
	rng.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	got := make([]byte, l.Size)
	fill := l.Begin(fixture.Bytes(got))
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for i := part; i < len(pieces); i += 4 {
				p := pieces[i]
				b := data[p.slot][p.lo:p.hi]
				var err error
				if len(bytes.Trim(b, "\x00")) == 0 {
					err = fill.Zero(p.slot, int64(p.lo), int64(len(b)))
				} else {
					err = fill.WriteAt(p.slot, b, int64(p.lo))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := fill.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the file differs from the one written in order")
	}
	fill = l.Begin(fixture.Bytes(got))
	if err := fill.WriteAt(0, data[0][:100], 0); err != nil {
		t.Fatal(err)
	}
	if err := fill.WriteAt(0, data[0][50:60], 50); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("writing twice gives %v", err)
	}
	if err := fill.Close(); err == nil || !strings.Contains(err.Error(), "not written") {
		t.Errorf("an incomplete file gives %v", err)
	}
}

// python finds a Python that has torch.
func python(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(p, "-c", "import torch").Run() == nil {
			return p
		}
	}
	t.Skip("SKIP: no Python with torch here (Debian: apt-get install python3-torch); torch.load was not run on the files that we write")
	return ""
}

// TestTorchLoads lets torch itself read reference files and the same written by
// us, and compare them.
func TestTorchLoads(t *testing.T) {
	root, names := torchFiles(t)
	py := python(t)
	s := fixture.Store(t, root)
	out := t.TempDir()
	o := fixture.Store(t, out)
	var pairs [][2]string
	for i, name := range names {
		if strings.Contains(name, "/zero/") && i%40 != 0 {
			continue
		}
		f, c, err := OpenIn(s, name, Options{})
		if err != nil {
			t.Fatal(err)
		}
		to := fmt.Sprintf("%d.pt", i)
		if err := Save(o, to, f.Root, WriteOptions{ByteOrder: i%2 == 0}); err != nil {
			t.Fatal(err)
		}
		c.Close()
		pairs = append(pairs, [2]string{s.Path(name), o.Path(to)})
	}
	if err := Save(o, "odd.pt", odd(), WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	st := NewStorage(tensor.BF16, 6, strings.NewReader("twelve bytes"))
	plain := NewOrderedDict("a", ViewOf(st, []int{2, 2}, 1), "b", ViewOf(st, []int{6}, 0), "n", NewList(int64(1)<<40, "s", true, nil))
	if err := Save(o, "plain.pt", plain, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(map[string]any{"pairs": pairs, "odd": o.Path("odd.pt"), "plain": o.Path("plain.pt")})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(out, "list.json")
	if err := os.WriteFile(file, list, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(py, filepath.Join("testdata", "compare.py"), file)
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1")
	got, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(got), fmt.Sprintf("%d files equal", len(pairs))) {
		t.Fatalf("torch: %v\n%s", err, got)
	}
	t.Logf("torch: %s", got)
}

// TestTorchLoadsLarge lets torch read a file beyond 4 GiB. It takes seconds and
// 5 GiB of memory, so it runs only when asked for.
func TestTorchLoadsLarge(t *testing.T) {
	if os.Getenv("LATHE_LARGE") == "" {
		t.Skip("SKIP: set LATHE_LARGE=1 to let torch read a file of 4.5 GiB")
	}
	py := python(t)
	s := fixture.Store(t, t.TempDir())
	big := NewTensor(tensor.U8, []int{9 << 29}, nil)
	l, err := NewPlan(NewDict("big", big, "small", NewTensor(tensor.F32, []int{2}, nil)), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Create("big.pt", l.Size)
	if err != nil {
		t.Fatal(err)
	}
	fill := l.Begin(w)
	half := l.Slots[0].Bytes / 2
	err = errors.Join(fill.Zero(0, 0, half), fill.WriteAt(0, []byte{7}, half), fill.Zero(0, half+1, half-1),
		fill.WriteAt(1, tensor.Of([]float32{1, 2}, 2).Bytes(), 0), fill.Close(), w.Close())
	if err != nil {
		t.Fatal(err)
	}
	script := `import sys, torch, zipfile
d = torch.load(sys.argv[1])
assert d["small"].tolist() == [1, 2] and d["big"].numel() == 9 << 29 and d["big"][9 << 28] == 7 and d["big"][-1] == 0
print(zipfile.ZipFile(sys.argv[1]).testzip())`
	out, err := exec.Command(py, "-c", script, s.Path("big.pt")).CombinedOutput()
	if err != nil || string(out) != "None\n" {
		t.Errorf("%v\n%s", err, out)
	}
}
