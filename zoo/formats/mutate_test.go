package formats

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/dcp"
	"github.com/lathe-ml/lathe/zoo/formats/fixture"
	"github.com/lathe-ml/lathe/zoo/formats/safetensors"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// mutate damages a copy of b: one to four changes of the kinds that find bugs
// in readers of binary files.
func mutate(rng *rand.Rand, b, other []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + rng.IntN(4) {
		if len(b) < 16 {
			return append(b, other...)
		}
		at := rng.IntN(len(b) - 8)
		n := 1 + rng.IntN(min(64, len(b)-at))
		switch rng.IntN(9) {
		case 0:
			b[at] ^= 1 << rng.IntN(8)
		case 1:
			b[at] = byte(rng.Uint32())
		case 2:
			b[at] = []byte{0, 1, 0x7f, 0x80, 0xff, '0', '9', '"', '{', '(', ')', '.', 'R', 'q', 'h', 't', ']'}[rng.IntN(17)]
		case 3:
			binary.LittleEndian.PutUint32(b[at:], []uint32{0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffe, uint32(len(b))}[rng.IntN(7)])
		case 4:
			binary.LittleEndian.PutUint64(b[at:], []uint64{0, 1<<63 - 1, 1 << 63, 1<<64 - 1, 1 << 40, uint64(len(b))}[rng.IntN(6)])
		case 5:
			b = b[:at]
		case 6:
			b = append(b[:at:at], b[at+n:]...)
		case 7:
			b = append(append(b[:at+n:at+n], b[at:at+n]...), b[at+n:]...)
		case 8:
			if len(other) > n {
				from := rng.IntN(len(other) - n)
				copy(b[at:], other[from:from+n])
			}
		}
	}
	return b
}

// rezip changes data.pkl of a zip and packs it again with a good CRC, so that
// the damage reaches the reader of pickles.
func rezip(t *testing.T, rng *rand.Rand, b []byte) []byte {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, e := range z.File {
		r, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(e.Name) == "data.pkl" {
			data = mutate(rng, data, data)
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: e.Name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// rehead changes the JSON of a safetensors file and corrects its length.
func rehead(rng *rand.Rand, b []byte) []byte {
	n := int(binary.LittleEndian.Uint64(b))
	head := mutate(rng, b[8:8+n], b[8:8+n])
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(head)))
	return append(append(out, head...), b[8+n:]...)
}

// readAll reads every tensor that is not huge: whatever was accepted must be
// readable.
func readAll(s weights.Store, tensors []weights.Tensor) error {
	for _, x := range tensors {
		if x.Bytes() > 1<<20 {
			continue
		}
		f, err := s.Open(x.File)
		if err != nil {
			return err
		}
		if _, err := x.Load(f); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// tally counts outcomes and guards memory.
type tally struct{ accepted, refused int }

func (c *tally) run(t *testing.T, what string, i int, open func() ([]weights.Tensor, weights.Store, error)) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			t.Fatalf("%s %d: panic: %v", what, i, r)
		}
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	tensors, s, err := open()
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
		t.Errorf("%s %d: a file of a few kB makes the reader allocate %d MiB", what, i, used>>20)
	}
	if err != nil {
		if len(err.Error()) < 10 {
			t.Errorf("%s %d: the error says only %q", what, i, err)
		}
		c.refused++
		return
	}
	c.accepted++
	if err := readAll(s, tensors); err != nil {
		t.Errorf("%s %d: accepted, but not readable: %v", what, i, err)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMutatedFiles opens 2,000 damaged files, always the same ones.
func TestMutatedFiles(t *testing.T) {
	root := fixture.Dir(t, "checkpoints")
	in := filepath.Join(root, "formats")
	rng := rand.New(rand.NewPCG(2026, 4))
	pt := [][]byte{
		read(t, filepath.Join(in, "misc_zip_proto2.pt")), read(t, filepath.Join(in, "misc_zip_proto5.pt")), read(t, filepath.Join(in, "single_tensor.pt")),
		read(t, filepath.Join(root, "z1_dp2_fp32/source/global_step3/mp_rank_00_model_states.pt")),
		read(t, filepath.Join(root, "z1_dp2_fp32/source/global_step3/zero_pp_rank_0_mp_rank_00_optim_states.pt")),
	}
	legacy := read(t, filepath.Join(in, "misc_legacy_proto2.pt"))
	st := [][]byte{read(t, filepath.Join(in, "all_dtypes.safetensors")), read(t, filepath.Join(in, "hf_sharded_safetensors/model-00001-of-00002.safetensors"))}
	var c tally
	for i := range 1000 {
		b := pt[i%len(pt)]
		switch {
		case i%5 == 0:
			b = mutate(rng, legacy, pt[0])
		case i%2 == 0:
			b = rezip(t, rng, b)
		default:
			b = mutate(rng, b, legacy)
		}
		c.run(t, "torch", i, func() ([]weights.Tensor, weights.Store, error) { return openTorch(b) })
	}
	for i := range 500 {
		b := st[i%2]
		if i%3 == 0 {
			b = mutate(rng, b, st[0])
		} else {
			b = rehead(rng, b)
		}
		c.run(t, "safetensors", i, func() ([]weights.Tensor, weights.Store, error) {
			s := fixture.NewMemory(map[string][]byte{"f": b})
			f, err := safetensors.OpenIn(s, "f")
			if err != nil {
				return nil, s, err
			}
			return f.Tensors, s, nil
		})
	}
	folder := map[string][]byte{}
	for _, f := range []string{".metadata", "__0_0.distcp", "__1_0.distcp"} {
		folder["d/"+f] = read(t, filepath.Join(in, "dcp_modern_handmade", f))
	}
	for i := range 500 {
		s := fixture.NewMemory(folder)
		name := "d/.metadata"
		if i%4 == 0 {
			name = "d/__0_0.distcp"
		}
		if err := weights.WriteFile(s, name, mutate(rng, folder[name], folder["d/.metadata"])); err != nil {
			t.Fatal(err)
		}
		c.run(t, "dcp", i, func() ([]weights.Tensor, weights.Store, error) { return openDCP(s) })
	}
	t.Logf("%d files: %d refused, %d still valid", c.accepted+c.refused, c.refused, c.accepted)
	if c.refused < 1000 || c.accepted < 100 {
		t.Errorf("%d refused and %d accepted: the damage is too dull or too gross", c.refused, c.accepted)
	}
}

func openTorch(b []byte) ([]weights.Tensor, weights.Store, error) {
	s := fixture.NewMemory(map[string][]byte{"f.pt": b})
	f, closer, err := torch.OpenIn(s, "f.pt", torch.Options{})
	if err != nil {
		return nil, s, err
	}
	defer closer.Close()
	named, err := torch.Tensors(f.Root)
	var out []weights.Tensor
	for _, n := range named {
		out = append(out, n.Tensor.Ref(n.Path))
	}
	return out, s, err
}

func openDCP(s weights.Store) ([]weights.Tensor, weights.Store, error) {
	c, err := dcp.Open(s, "d")
	if err != nil {
		return nil, s, err
	}
	var out []weights.Tensor
	for _, t := range c.Tensors {
		for _, ch := range t.Chunks {
			out = append(out, ch.Data)
		}
	}
	return out, s, nil
}
