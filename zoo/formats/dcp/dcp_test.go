package dcp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/fixture"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// union puts the chunks of a tensor together, element by element.
func union(t testing.TB, s weights.Store, x *Tensor) []byte {
	t.Helper()
	es := x.DType.Size()
	whole := weights.Tensor{Shape: x.Shape}
	out := make([]byte, whole.Len()*int64(es))
	strides := weights.RowMajor(x.Shape)
	for _, ch := range x.Chunks {
		f, err := s.Open(ch.Data.File)
		if err != nil {
			t.Fatal(err)
		}
		v, err := ch.Data.Load(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		for i := range v.Len() {
			at, rest := 0, i
			for k := len(ch.Sizes) - 1; k >= 0; k-- {
				at += (ch.Offsets[k] + rest%ch.Sizes[k]) * strides[k]
				rest /= ch.Sizes[k]
			}
			copy(out[at*es:], v.Bytes()[i*es:(i+1)*es])
		}
	}
	return out
}

func checkCheckpoint(t *testing.T, s weights.Store, c *Checkpoint, expect string) {
	t.Helper()
	var want map[string]fixture.Expect
	fixture.JSON(t, expect, &want)
	if len(c.Tensors) != len(want) {
		t.Errorf("%d tensors, want %d", len(c.Tensors), len(want))
	}
	for i := range c.Tensors {
		x := &c.Tensors[i]
		w := want[x.Name]
		if x.DType != w.Type() || !slices.Equal(x.Shape, w.Shape) {
			t.Errorf("%s is %s%v, want %s%v", x.Name, x.DType, x.Shape, w.DType, w.Shape)
		}
		b := union(t, s, x)
		if got := fixture.Sum(t, bytes.NewReader(b), int64(len(b))); got != w.SHA256 {
			t.Errorf("%s has other bytes", x.Name)
		}
	}
}

func TestFixtures(t *testing.T) {
	dir := fixture.Dir(t, "checkpoints/formats")
	s := fixture.Store(t, dir)
	c, err := Open(s, "dcp_modern_handmade")
	if err != nil {
		t.Fatal(err)
	}
	checkCheckpoint(t, s, c, filepath.Join(dir, "dcp_modern_handmade", "expect.json"))
	if len(c.Blobs) != 1 || c.Blobs[0].Name != "step" || c.Blobs[0].Value == nil {
		t.Errorf("values: %v", c.Blobs)
	}
	w := c.Find("model.w")
	if len(w.Chunks) != 2 || !slices.Equal(w.Chunks[1].Offsets, []int{4, 0}) || !slices.Equal(w.Chunks[1].Sizes, []int{3, 5}) || w.Path[1] != "w" {
		t.Errorf("model.w: %+v", w)
	}
	m, err := OpenMegatron(s, "mcore_torch_dist_handmade")
	if err != nil {
		t.Fatal(err)
	}
	checkCheckpoint(t, s, m.Checkpoint, filepath.Join(dir, "mcore_torch_dist_handmade", "expect.json"))
	if m.Common == nil || m.Backend != "torch_dist" || m.BackendVersion != 1 {
		t.Errorf("Megatron: %+v", m)
	}
}

// grid is a checkpoint of a 2 x 3 grid of uneven chunks in two files, a scalar
// and values.
func grid() *Checkpoint {
	g := Tensor{Name: "layers.0.w", DType: tensor.F32, Shape: []int{7, 8}, RequiresGrad: true, Path: []torch.Value{"layers", int64(0), "w"}}
	rows, cols := []int{0, 4, 7}, []int{0, 3, 5, 8}
	for i := range 2 {
		for k := range 3 {
			g.Chunks = append(g.Chunks, Chunk{
				Offsets: []int{rows[i], cols[k]}, Sizes: []int{rows[i+1] - rows[i], cols[k+1] - cols[k]},
				Data: weights.Tensor{File: fmt.Sprintf("__%d_0.distcp", i)},
			})
		}
	}
	st := torch.NewTensor(tensor.I64, []int{2}, bytes.NewReader([]byte("sixteen bytes...")))
	return &Checkpoint{
		Tensors: []Tensor{
			g,
			{Name: "scalar", DType: tensor.BF16, Shape: []int{}, Chunks: []Chunk{{Offsets: []int{}, Sizes: []int{}}}},
			{Name: "zero", DType: tensor.F32, Shape: []int{0, 3}, Chunks: []Chunk{{Offsets: []int{0, 0}, Sizes: []int{0, 3}}}},
		},
		Blobs: []Blob{{Name: "args", Value: torch.NewDict("lr", 0.5, "t", st)}, {Name: "step", Value: int64(3), Path: []torch.Value{"step"}}},
	}
}

// element (i, k) of layers.0.w is the float i*8+k.
func chunkData(c *Checkpoint, ref ChunkRef) []byte {
	ch := c.Tensors[ref.Tensor].Chunks[ref.Chunk]
	if len(ch.Sizes) == 0 {
		return []byte{0x80, 0x3f} // 1 in bfloat16
	}
	var v []float32
	for i := range ch.Sizes[0] {
		for k := range ch.Sizes[1] {
			v = append(v, float32((ch.Offsets[0]+i)*8+ch.Offsets[1]+k))
		}
	}
	return tensor.Of(v, len(v)).Bytes()
}

func write(t testing.TB, s weights.Store, dir string, c *Checkpoint) {
	t.Helper()
	l, err := NewPlan(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range l.Files {
		if err := f.Check(); err != nil {
			t.Fatal(err)
		}
		w, err := s.Create(weights.Join(dir, f.Name), f.Size)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Write(w, func(i int) (io.ReaderAt, error) { return bytes.NewReader(chunkData(c, f.Chunks[i])), nil }); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := weights.WriteFile(s, weights.Join(dir, MetadataName), l.Metadata); err != nil {
		t.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	s := fixture.Store(t, t.TempDir())
	write(t, s, "out", grid())
	c, err := Open(s, "out")
	if err != nil {
		t.Fatal(err)
	}
	w := c.Find("layers.0.w")
	for i, v := range tensor.As[float32](must(tensor.FromBytes(tensor.F32, w.Shape, union(t, s, w)))) {
		if v != float32(i) {
			t.Fatalf("element %d is %v", i, v)
		}
	}
	if len(w.Chunks) != 6 || !w.RequiresGrad || w.Path[1] != int64(0) || w.Chunks[4].Data.File != "out/__1_0.distcp" {
		t.Errorf("%+v", w)
	}
	for _, ch := range w.Chunks {
		in := must(s.Open(ch.Data.File))
		raw := make([]byte, ch.StorageBytes)
		if err := weights.ReadFull(in, raw, ch.Storage); err != nil || !ch.HasSum || weights.CRC(raw) != ch.Sum {
			t.Errorf("the CRC of the chunk at %v is wrong (%v)", ch.Offsets, err)
		}
		in.Close()
		if ch.Data.Offset%64 != 0 {
			t.Errorf("a chunk is at byte %d, which is not aligned", ch.Data.Offset)
		}
	}
	if len(c.Blobs) != 2 || c.Blobs[1].Value != int64(3) {
		t.Errorf("%+v", c.Blobs)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestTorchReads lets Python load a folder that we wrote: the metadata with
// classes modelled after PyTorch's sources, the items with torch.load.
func TestTorchReads(t *testing.T) {
	py := "/usr/bin/python3"
	if exec.Command(py, "-c", "import torch").Run() != nil {
		t.Skip("SKIP: /usr/bin/python3 has no torch here (Debian: apt-get install python3-torch)")
	}
	dir := t.TempDir()
	write(t, fixture.Store(t, dir), "out", grid())
	cmd := exec.Command(py, filepath.Join("testdata", "load.py"), filepath.Join(dir, "out"))
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1")
	got, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(got), "equal") {
		t.Fatalf("%v\n%s", err, got)
	}
}

func FuzzOpen(f *testing.F) {
	m := fixture.NewMemory(nil)
	c := grid()
	c.Tensors = c.Tensors[1:2]
	c.Blobs = c.Blobs[1:]
	write(f, m, "d", c)
	file := must(weights.ReadFile(m, "d/__0_0.distcp", 1<<20))
	f.Add(must(weights.ReadFile(m, "d/.metadata", 1<<20)), file)
	f.Fuzz(func(t *testing.T, meta, data []byte) {
		s := fixture.NewMemory(map[string][]byte{"d/.metadata": meta, "d/__0_0.distcp": data})
		c, err := OpenPartial(s, "d")
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without text")
			}
			return
		}
		for _, x := range c.Tensors {
			for _, ch := range x.Chunks {
				in := must(s.Open(ch.Data.File))
				if _, err := ch.Data.Load(in); err != nil {
					t.Errorf("%s: %v", x.Name, err)
				}
			}
		}
	})
}

func TestRefuses(t *testing.T) {
	box := func(o, z []int) Chunk { return Chunk{Offsets: o, Sizes: z} }
	for want, chunks := range map[string][]Chunk{
		"overlap":    {box([]int{0, 0}, []int{2, 2}), box([]int{1, 1}, []int{1, 1})},
		"leaves it":  {box([]int{0, 0}, []int{2, 3})},
		"dimensions": {box([]int{0}, []int{2})},
	} {
		c := &Checkpoint{Tensors: []Tensor{{Name: "a", DType: tensor.F32, Shape: []int{2, 2}, Chunks: chunks}}}
		if _, err := NewPlan(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", chunks, err, want)
		}
	}
	c := grid()
	c.Tensors[0].Chunks = c.Tensors[0].Chunks[1:]
	s := fixture.Store(t, t.TempDir())
	write(t, s, "hole", c)
	if _, err := Open(s, "hole"); err == nil || !strings.Contains(err.Error(), "in no chunk") {
		t.Errorf("a hole: %v", err)
	}
	if p, err := OpenPartial(s, "hole"); err != nil || p.Find("layers.0.w").Missing != 12 {
		t.Errorf("a hole of 4 x 3: %v", err)
	}
	write(t, s, "short", grid())
	raw := must(weights.ReadFile(s, "short/__1_0.distcp", 1<<20))
	if err := weights.WriteFile(s, "short/__1_0.distcp", raw[:len(raw)-1]); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s, "short"); err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("a truncated file: %v", err)
	}
	if err := s.Remove("short/__1_0.distcp"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s, "short"); err == nil || !strings.Contains(err.Error(), "__1_0.distcp") {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Open(s, "."); err == nil || !strings.Contains(err.Error(), ".metadata") {
		t.Errorf("no metadata: %v", err)
	}
	// Places outside of the folder.
	meta := must(weights.ReadFile(s, "hole/.metadata", 1<<20))
	meta = bytes.ReplaceAll(meta, []byte("__1_0.distcp"), []byte("../../../etc"))
	if err := weights.WriteFile(s, "hole/.metadata", meta); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenPartial(s, "hole"); err == nil || !strings.Contains(err.Error(), "leaves its folder") {
		t.Errorf("path traversal: %v", err)
	}
	if err := weights.WriteFile(s, "m/metadata.json", []byte(`{"sharded_backend":"zarr"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenMegatron(s, "m"); err == nil || !strings.Contains(err.Error(), "zarr") {
		t.Errorf("zarr: %v", err)
	}
	if _, err := OpenMegatron(s, "nowhere"); err == nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
}

// BenchmarkOpen places 20,000 chunks.
func BenchmarkOpen(b *testing.B) {
	m := fixture.NewMemory(nil)
	c := &Checkpoint{}
	for i := range 2500 {
		x := Tensor{Name: fmt.Sprintf("layers.%d.weight", i), DType: tensor.F32, Shape: []int{8, 4}}
		for k := range 8 {
			x.Chunks = append(x.Chunks, Chunk{Offsets: []int{k, 0}, Sizes: []int{1, 4}, Data: weights.Tensor{File: fmt.Sprintf("__%d_0.distcp", k)}})
		}
		c.Tensors = append(c.Tensors, x)
	}
	write(b, m, "d", c)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(m, "d"); err != nil {
			b.Fatal(err)
		}
	}
}
