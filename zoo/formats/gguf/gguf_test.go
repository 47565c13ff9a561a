package gguf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// builder writes a file by hand after the specification (ggml docs/gguf.md).
type builder struct{ b []byte }

func (w *builder) u32(v uint32) *builder {
	w.b = binary.LittleEndian.AppendUint32(w.b, v)
	return w
}

func (w *builder) u64(v uint64) *builder {
	w.b = binary.LittleEndian.AppendUint64(w.b, v)
	return w
}

func (w *builder) str(s string) *builder {
	w.u64(uint64(len(s)))
	w.b = append(w.b, s...)
	return w
}

func (w *builder) raw(s string) *builder {
	w.b = append(w.b, s...)
	return w
}

func (w *builder) tensor(name string, kind uint32, off uint64, dims ...uint64) *builder {
	w.str(name).u32(uint32(len(dims)))
	for _, d := range dims {
		w.u64(d)
	}
	return w.u32(kind).u64(off)
}

func (w *builder) pad(n int) *builder {
	for len(w.b)%n != 0 {
		w.b = append(w.b, 0)
	}
	return w
}

func head(tensors, entries uint64) *builder {
	w := &builder{}
	return w.raw("GGUF").u32(3).u64(tensors).u64(entries)
}

func good() []byte {
	w := head(3, 5)
	w.str("general.architecture").u32(8).str("llama")
	w.str("general.alignment").u32(4).u32(64)
	w.str("list").u32(9).u32(5).u64(3).u32(1).u32(2).u32(0xffffffff)
	w.str("yes").u32(7).raw("\x01")
	w.str("eps").u32(6).u32(0x3f000000) // 0.5
	w.tensor("a", 0, 0, 3, 2)           // ggml order: 3 columns, 2 rows
	w.tensor("q", 8, 64, 64, 1)         // Q8_0: two blocks of 34 bytes
	w.tensor("h", 30, 192, 2)
	w.pad(64)
	for i := range 6 {
		w.u32(uint32(i))
	}
	w.pad(64).raw(strings.Repeat("Q", 68)).pad(64).raw("\x80\x3f\x00\x40")
	return w.b
}

func TestOpen(t *testing.T) {
	b := good()
	r := bytes.NewReader(b)
	f, err := Open(r, int64(len(b)), "m.gguf")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"general.architecture": "llama", "list": "[1 2 -1]", "yes": "true", "eps": "0.5"} {
		if v, ok := f.Get(key); !ok || fmt.Sprint(v) != want {
			t.Errorf("%s is %v, want %s", key, v, want)
		}
	}
	a, ok := f.Tensors[0].Plain()
	v, err := a.Load(r)
	if !ok || err != nil || !slices.Equal(a.Shape, []int{2, 3}) || a.DType != tensor.F32 || v.Bytes()[4] != 1 || a.File != "m.gguf" {
		t.Errorf("a: %v %v", a, err)
	}
	q := &f.Tensors[1]
	if _, plain := q.Plain(); plain || q.Type.String() != "Q8_0" || q.Bytes != 68 {
		t.Errorf("q: %+v", q)
	}
	raw := q.Raw()
	if v, err := raw.Load(r); err != nil || string(v.Bytes()) != strings.Repeat("Q", 68) {
		t.Errorf("q: %v", err)
	}
	h, _ := f.Tensors[2].Plain()
	if v, err := h.Load(r); err != nil || v.Float(0) != 1 || v.Float(1) != 2 {
		t.Errorf("h: %v %v", v, err)
	}
	for n := range b {
		if _, err := Open(bytes.NewReader(b[:n]), int64(n), "x"); err == nil || err.Error() == "" {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestRefuses(t *testing.T) {
	zeros := strings.Repeat("\x00", 256)
	cases := map[string][]byte{
		"not a GGUF":      []byte("GGML1234"),
		"version 1":       (&builder{}).raw("GGUF").u32(1).raw(zeros).b,
		"more than any":   head(1<<60, 0).b,
		"no whole blocks": head(1, 0).tensor("a", 8, 0, 33).pad(32).raw(zeros).b,
		"type 99":         head(1, 0).tensor("a", 99, 0, 33).raw(zeros).b,
		"dimensions":      head(1, 0).tensor("a", 0, 0, 1, 1, 1, 1, 1).raw(zeros).b,
		"too many":        head(1, 0).tensor("a", 0, 0, 1<<32, 1<<32).raw(zeros).b,
		"not aligned":     head(1, 0).tensor("a", 0, 4, 1).raw(zeros).b,
		"truncated":       head(1, 0).tensor("a", 0, 0, 1000).raw(zeros).b,
		"outside":         head(1, 0).tensor("a", 0, 1<<63, 1).raw(zeros).b,
		"tensor \"a\" is": head(2, 0).tensor("a", 0, 0, 1).tensor("a", 0, 32, 1).raw(zeros).b,
		"overlaps":        head(2, 0).tensor("a", 0, 0, 16).tensor("b", 0, 32, 1).raw(zeros).b,
		"\"k\" twice":     head(0, 2).str("k").u32(4).u32(1).str("k").u32(4).u32(1).b,
		"type 13":         head(0, 1).str("k").u32(13).u32(1).b,
		"bool":            head(0, 1).str("k").u32(7).raw("\x02").b,
		"string has":      head(0, 1).u64(1 << 50).b,
		"nested":          head(0, 1).str("k").u32(9).u32(9).u64(1).u32(9).u64(1).u32(9).u64(1).u32(9).u64(1).u32(9).u64(1).raw(zeros).b,
		"no alignment":    head(0, 1).str("general.alignment").u32(4).u32(7).b,
	}
	for want, b := range cases {
		if _, err := Open(bytes.NewReader(b), int64(len(b)), "f"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(good())
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := Open(bytes.NewReader(b), int64(len(b)), "")
		if err != nil {
			return
		}
		for i := range x.Tensors {
			raw := x.Tensors[i].Raw()
			if _, err := raw.Load(bytes.NewReader(b)); err != nil {
				t.Errorf("%s: %v", raw.Name, err)
			}
		}
	})
}
