package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
)

func packed(v ...float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func unpacked(b []byte) []float32 {
	var out []float32
	for i := 0; i < len(b); i += 4 {
		out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(b[i:])))
	}
	return out
}

// sourceOf makes a checkpoint whose files hold the given bytes.
func sourceOf(t *testing.T, files ...[]byte) *atom.Checkpoint {
	t.Helper()
	s, err := weights.CreateOS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c := &atom.Checkpoint{Store: s}
	for i, b := range files {
		name := string(rune('a' + i))
		if err := weights.WriteFile(s, name, b); err != nil {
			t.Fatal(err)
		}
		c.Blobs = append(c.Blobs, atom.Blob{File: name, Bytes: int64(len(b)), Sum: crc32.ChecksumIEEE(b), HasSum: true})
	}
	return c
}

func whole(shape []int64, blob int32) atom.Piece {
	return atom.Piece{View: geometry.Whole(shape), Frags: []atom.Frag{{Len: geometry.Numel(shape), Blob: blob}}}
}

func TestAverage(t *testing.T) {
	// (1+2)/2, (-0 + -0)/2 = 0 since the sum begins at 0, and in float32
	// (1 + 2^-24)/2 = 0.5: the sum rounds to even.
	c := sourceOf(t, packed(1, float32(math.Copysign(0, -1)), 1), packed(2, float32(math.Copysign(0, -1)), 1.0/(1<<24)))
	shape := []int64{3}
	x := &atom.Tensor{DType: tensor.F32, Shape: shape, Pieces: []atom.Piece{whole(shape, 0)}, Copies: []atom.Piece{whole(shape, 1)}, Average: true}
	b, err := Load(c, x)
	if err != nil {
		t.Fatal(err)
	}
	if want := packed(1.5, 0, 0.5); !bytes.Equal(b, want) {
		t.Errorf("mean %v, want %v", unpacked(b), unpacked(want))
	}
}

func TestStrides(t *testing.T) {
	c := sourceOf(t, packed(0, 1, 2, 3, 4, 5))
	shape := []int64{3, 2}
	transposed := whole(shape, 0) // stored as 2x3
	transposed.Stride = []int64{1, 3}
	expanded := whole([]int64{2, 3}, 0)
	expanded.Stride = []int64{0, 1}
	for _, k := range []struct {
		p    atom.Piece
		want []float32
	}{{transposed, []float32{0, 3, 1, 4, 2, 5}}, {expanded, []float32{0, 1, 2, 0, 1, 2}}} {
		b, err := Load(c, &atom.Tensor{DType: tensor.F32, Shape: k.p.View.Local, Pieces: []atom.Piece{k.p}})
		if err != nil || !slices.Equal(unpacked(b), k.want) {
			t.Errorf("strides %v: %v %v, want %v", k.p.Stride, unpacked(b), err, k.want)
		}
	}
}

// layout is a plain file of one slot.
func layout(s Slot, n int64) *Layout {
	return &Layout{Plan: &weights.Plan{Size: n, Slots: []weights.Slot{{Name: s.Name, Bytes: n}}}, Slots: []Slot{s}}
}

func runOne(t *testing.T, c *atom.Checkpoint, checks []Check, spans ...Span) ([]byte, error) {
	t.Helper()
	n := int64(0)
	for i := range spans {
		n += spans[i].Bytes()
	}
	out, err := weights.CreateOS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	job := &Job{Source: c, Files: []File{{Name: "f", Bytes: n, Build: func() (*Layout, error) { return layout(Slot{Name: "s", Spans: spans}, n), nil }}}}
	if _, err := Run(context.Background(), job, out, Options{Copies: checks}); err != nil {
		return nil, err
	}
	return weights.ReadFile(out, "f", 1<<20)
}

func TestSpans(t *testing.T) {
	c := sourceOf(t, packed(1, 2, 3, 4))
	x := &atom.Tensor{DType: tensor.F32, Shape: []int64{4}, Pieces: []atom.Piece{whole([]int64{4}, 0)}}
	v := geometry.Whole(x.Shape)
	b, err := runOne(t, c, nil,
		Span{Tensor: x, View: &v, Start: 2, Len: 2, DType: tensor.F32}, Span{Zeros: 4}, Span{Literal: packed(9)},
		Span{Tensor: x, View: &v, Start: 0, Len: 1, DType: tensor.F32})
	if want := packed(3, 4, 0, 9, 1); err != nil || !bytes.Equal(b, want) {
		t.Errorf("%v %v, want %v", unpacked(b), err, unpacked(want))
	}
}

func TestCopiesMustBeEqual(t *testing.T) {
	c := sourceOf(t, packed(1, 2, 3), packed(1, 2, 3), packed(1, 2, 4))
	shape := []int64{3}
	x := &atom.Tensor{DType: tensor.F32, Shape: shape, Pieces: []atom.Piece{whole(shape, 0)}, Copies: []atom.Piece{whole(shape, 1)}}
	if _, err := runOne(t, c, []Check{{"x", x}}, All(x, tensor.F32)); err != nil {
		t.Error(err)
	}
	x.Copies = append(x.Copies, whole(shape, 2))
	_, err := runOne(t, c, []Check{{"x", x}}, All(x, tensor.F32))
	if fault.KindOf(err) != fault.BadModel || !strings.Contains(err.Error(), "differ from element 2 on") {
		t.Errorf("unequal copies: %v", err)
	}
}

// TestSourceSums reads storages in pieces and out of order: sums hold, damage
// is found even in bytes that nobody wanted.
func TestSourceSums(t *testing.T) {
	data := make([]float32, 1000)
	for i := range data {
		data[i] = float32(i)
	}
	for _, damage := range []bool{false, true} {
		c := sourceOf(t, packed(data...))
		if damage {
			c.Blobs[0].Sum ^= 1
		}
		x := &atom.Tensor{DType: tensor.F32, Shape: []int64{1000}, Pieces: []atom.Piece{whole([]int64{1000}, 0)}}
		v := geometry.Whole(x.Shape)
		_, err := runOne(t, c, nil, Span{Tensor: x, View: &v, Start: 700, Len: 100, DType: tensor.F32},
			Span{Tensor: x, View: &v, Start: 100, Len: 50, DType: tensor.F32}, Span{Tensor: x, View: &v, Start: 120, Len: 600, DType: tensor.F32})
		if damage != (err != nil) || damage && !strings.Contains(err.Error(), "damaged") {
			t.Errorf("damage %v: %v", damage, err)
		}
	}
}

// TestManySmallRuns cuts a matrix along its columns: four-byte runs.
func TestManySmallRuns(t *testing.T) {
	const rows = 40_000
	data := make([]float32, rows*2)
	for i := range data {
		data[i] = float32(i)
	}
	c := sourceOf(t, packed(data...))
	x := &atom.Tensor{DType: tensor.F32, Shape: []int64{rows, 2}, Pieces: []atom.Piece{whole([]int64{rows, 2}, 0)}}
	views, err := geometry.Split{Dim: 1}.Views(x.Shape, 2)
	if err != nil {
		t.Fatal(err)
	}
	b, err := runOne(t, c, nil, Span{Tensor: x, View: &views[1], Len: rows, DType: tensor.F32})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range unpacked(b) {
		if v != float32(2*i+1) {
			t.Fatalf("row %d is %v", i, v)
		}
	}
}
