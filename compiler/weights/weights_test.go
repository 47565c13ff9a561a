package weights

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// TestCRC: combining equals computing over the whole, for all kinds of cuts.
func TestCRC(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, 10000)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	for range 200 {
		n := rng.IntN(len(b) + 1)
		cut := rng.IntN(n + 1)
		if got, want := CombineCRC(CRC(b[:cut]), CRC(b[cut:n]), int64(n-cut)), crc32.ChecksumIEEE(b[:n]); got != want {
			t.Fatalf("%d + %d bytes: %08x, want %08x", cut, n-cut, got, want)
		}
		if got, want := ZeroCRC(int64(n)), crc32.ChecksumIEEE(make([]byte, n)); got != want {
			t.Fatalf("%d zeros: %08x, want %08x", n, got, want)
		}
	}
	// 8 GiB of zeros as four times 2 GiB, each by halving down to one byte.
	half := func(n int64) uint32 { return ZeroCRC(n) }
	want := uint32(0)
	for range 4 {
		want = CombineCRC(want, half(2<<30), 2<<30)
	}
	if got := ZeroCRC(8 << 30); got != want {
		t.Errorf("8 GiB of zeros: %08x, want %08x", got, want)
	}
}

// TestStrided compares reads by stride with indexing, at random offsets.
func TestStrided(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	data := make([]byte, 1<<16)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	for range 300 {
		rank := rng.IntN(4)
		x := Tensor{DType: tensor.I16, Offset: int64(rng.IntN(100))}
		for range rank {
			x.Shape = append(x.Shape, 1+rng.IntN(7))
			x.Stride = append(x.Stride, rng.IntN(40))
		}
		if rank == 0 {
			x.Stride = []int{}
		}
		if rng.IntN(3) == 0 {
			x.Stride = RowMajor(x.Shape)
		}
		want := make([]byte, 0, x.Bytes())
		for i := range x.Len() {
			at, rest := x.Offset, i
			for k := rank - 1; k >= 0; k-- {
				at += rest % int64(x.Shape[k]) * int64(x.Stride[k]) * 2
				rest /= int64(x.Shape[k])
			}
			want = append(want, data[at:at+2]...)
		}
		extent, err := Extent(x.Shape, x.Stride)
		if err != nil || x.Offset+extent*2 > int64(len(data)) {
			t.Fatalf("%v %v: extent %d (%v)", x.Shape, x.Stride, extent, err)
		}
		// The file ends right after the last element.
		r := x.Reader(bytes.NewReader(data[:x.Offset+extent*2]))
		got := make([]byte, len(want))
		if n, err := r.ReadAt(got, 0); n != len(got) || err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%v %v: %v", x.Shape, x.Stride, err)
		}
		off := rng.Int64N(x.Bytes())
		part := make([]byte, rng.IntN(50))
		n, err := r.ReadAt(part, off)
		if w := want[off:min(int64(len(want)), off+int64(len(part)))]; !bytes.Equal(part[:n], w) || n < len(part) && err != io.EOF {
			t.Fatalf("%v %v at %d: %v", x.Shape, x.Stride, off, err)
		}
	}
	// Long rows are read directly, short ones through a window.
	big := make([]byte, 1<<20)
	for i := range big {
		big[i] = byte(i >> 8)
	}
	x := Tensor{DType: tensor.U8, Shape: []int{3, 100000}, Stride: []int{300000, 1}}
	v, err := x.Load(bytes.NewReader(big))
	if err != nil || v.Bytes()[100000] != big[300000] || v.Bytes()[299999] != big[699999] {
		t.Errorf("long rows: %v", err)
	}
	x = Tensor{DType: tensor.U8, Shape: []int{3}, Stride: []int{1 << 19}}
	if _, err := x.Load(bytes.NewReader(big)); err == nil {
		t.Error("reading after the end is no error")
	}
}

func TestExtent(t *testing.T) {
	for _, c := range []struct {
		shape, stride []int
		want          int64
	}{
		{nil, nil, 1}, {[]int{2, 3}, nil, 6}, {[]int{2, 3}, []int{10, 1}, 13}, {[]int{0, 3}, []int{10, 1}, 0}, {[]int{4}, []int{0}, 1},
		{[]int{1 << 40, 1 << 40}, nil, -1}, {[]int{-1}, nil, -1}, {[]int{2}, []int{-1}, -1}, {[]int{3}, []int{1 << 62}, -1}, {[]int{3}, []int{1, 2}, -1},
	} {
		got, err := Extent(c.shape, c.stride)
		if err != nil {
			got = -1
		}
		if got != c.want {
			t.Errorf("%v %v: %d (%v), want %d", c.shape, c.stride, got, err, c.want)
		}
	}
}

func TestOS(t *testing.T) {
	dir := t.TempDir()
	s, err := CreateOS(filepath.Join(dir, "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "secret"), s.Path("link")); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(s, "link", 9); err != nil || string(b) != "x" {
		t.Errorf("a link, as in the hub's cache: %q %v", b, err)
	}
	if err := WriteFile(s, "link", []byte("overwritten")); err == nil {
		t.Error("a link out of the folder can be written through")
	}
	if err := os.Symlink("nowhere", s.Path("dangling")); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List("."); err != nil || len(list) != 1 || list[0] != (Info{Name: "link", Size: 1}) {
		t.Errorf("links: %v %v", list, err)
	}
	if err := s.Remove("dangling"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "/etc/passwd", "../../secret", "x/../../../secret", "x//y", "./x", "a\x00b"} {
		if f, err := s.Open(bad); err == nil {
			f.Close()
			t.Errorf("%q can be opened", bad)
		}
		if _, err := s.Create(bad, 1); err == nil {
			t.Errorf("%q can be created", bad)
		}
		if err := s.Remove(bad); err == nil {
			t.Errorf("%q can be removed", bad)
		}
		if err := s.Rename(bad, "y"); err == nil {
			t.Errorf("%q can be renamed", bad)
		}
	}
	if err := s.Remove("link"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("."); err == nil {
		t.Error("the root can be removed")
	}
	if _, err := s.Open("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if ok, err := Exists(s, "none"); ok || err != nil {
		t.Errorf("a missing file exists: %v", err)
	}
	w, err := s.Create("tmp/x/f", 10)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt([]byte("ab"), 4); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Sync(), w.Close(), WriteFile(s, "tmp/g", []byte("gg")), s.Rename("tmp", "done/final")); err != nil {
		t.Fatal(err)
	}
	b, err := ReadFile(s, "done/final/x/f", 10)
	if err != nil || string(b) != "\x00\x00\x00\x00ab\x00\x00\x00\x00" {
		t.Errorf("%q %v", b, err)
	}
	if _, err := ReadFile(s, "done/final/x/f", 9); err == nil || !strings.Contains(err.Error(), "more than the 9") {
		t.Errorf("limit: %v", err)
	}
	if b, err := ReadFile(s, "done/final/g", 9); err != nil || string(b) != "gg" {
		t.Errorf("%q %v", b, err)
	}
	var names []string
	if err := Walk(s, ".", func(i Info) error { names = append(names, i.Name); return nil }); err != nil || strings.Join(names, " ") != "done/final/g done/final/x/f" {
		t.Errorf("%v %v", names, err)
	}
	if _, err := s.Open("done"); err == nil {
		t.Error("a folder can be opened as a file")
	}
}

func TestPlanCheck(t *testing.T) {
	for _, c := range []struct {
		slots []Slot
		ok    bool
	}{
		{[]Slot{{"b", 5, 5}, {"a", 0, 5}, {"none", 3, 0}}, true},
		{[]Slot{{"a", 0, 6}, {"b", 5, 5}}, false},
		{[]Slot{{"a", 8, 3}}, false},
		{[]Slot{{"a", 0, -1}}, false},
	} {
		p := Plan{Size: 10, Slots: c.slots}
		if err := p.Check(); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.slots, err)
		}
	}
	p := Plan{Size: 10, Slots: []Slot{{"a", 0, 5}}}
	f := p.Begin(nil)
	for _, r := range [][2]int64{{-1, 2}, {4, 2}, {6, 1}} {
		if err := f.Zero(0, r[0], r[1]); err == nil {
			t.Errorf("%v is accepted", r)
		}
	}
	if err := errors.Join(f.Zero(0, 0, 1), f.Zero(0, 3, 2)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err == nil || !strings.Contains(err.Error(), "bytes 1 to 3 of a were not written") {
		t.Error(err)
	}
}
