package formats

import (
	"bytes"
	"io"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/fixture"
	"github.com/lathe-ml/lathe/zoo/formats/safetensors"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// benchBytes is the size of the tensor that benchmarks move.
const benchBytes = 256 << 20

func save(b *testing.B, s weights.Store, name string, p *weights.Plan, data io.ReaderAt) {
	b.Helper()
	w, err := s.Create(name, p.Size)
	if err != nil {
		b.Fatal(err)
	}
	if err := p.Write(w, func(int) (io.ReaderAt, error) { return data, nil }); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkTorchCopy reads a torch file and writes it again: read, CRC, write.
func BenchmarkTorchCopy(b *testing.B) {
	s := fixture.Store(b, b.TempDir())
	root := torch.NewDict("w", torch.NewTensor(tensor.F32, []int{benchBytes / 4}, nil))
	l, err := torch.NewPlan(root, torch.WriteOptions{})
	if err != nil {
		b.Fatal(err)
	}
	save(b, s, "in.pt", &l.Plan, bytes.NewReader(make([]byte, benchBytes)))
	b.SetBytes(benchBytes)
	b.ReportAllocs()
	for b.Loop() {
		f, c, err := torch.OpenIn(s, "in.pt", torch.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := torch.Save(s, "out.pt", f.Root, torch.WriteOptions{}); err != nil {
			b.Fatal(err)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSafetensorsCopy is the same without a CRC.
func BenchmarkSafetensorsCopy(b *testing.B) {
	s := fixture.Store(b, b.TempDir())
	list := []weights.Tensor{{Name: "w", DType: tensor.F32, Shape: []int{benchBytes / 4}}}
	p, err := safetensors.NewPlan(list, nil)
	if err != nil {
		b.Fatal(err)
	}
	save(b, s, "in", p, bytes.NewReader(make([]byte, benchBytes)))
	b.SetBytes(benchBytes)
	b.ReportAllocs()
	for b.Loop() {
		in, err := s.Open("in")
		if err != nil {
			b.Fatal(err)
		}
		f, err := safetensors.Open(in, in.Size(), "in")
		if err != nil {
			b.Fatal(err)
		}
		save(b, s, "out", p, f.Tensors[0].Reader(in))
		if err := in.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTorchOpen reads the structure of a file of 10,000 tensors.
func BenchmarkTorchOpen(b *testing.B) {
	m := fixture.NewMemory(nil)
	d := torch.NewDict()
	for i := range int64(10000) {
		d.Set(i, torch.NewTensor(tensor.F32, []int{4, 4}, bytes.NewReader(make([]byte, 64))))
	}
	if err := torch.Save(m, "f", d, torch.WriteOptions{}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := torch.Load(m, "f", torch.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
