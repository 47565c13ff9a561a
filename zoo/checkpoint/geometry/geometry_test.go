package geometry

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// place fills the logical positions that a view gives to its local elements by
// looking at every element alone: the slow definition of Walk.
func place(v View) []int64 {
	n := Numel(v.Local)
	out := make([]int64, n)
	st := strides(v.Global)
	for pos := range n {
		out[pos] = -1
		c := make([]int64, len(v.Local))
		rest := pos
		for d := len(c) - 1; d >= 0; d-- {
			c[d] = rest % v.Local[d]
			rest /= v.Local[d]
		}
		for _, p := range v.Parts {
			if !p.holds(c) {
				continue
			}
			to := int64(0)
			for d := range c {
				to += (c[d] - p.Local[d] + p.Global[d]) * st[d]
			}
			out[pos] = to
		}
	}
	return out
}

func walk(v View) []int64 {
	w := v.Walk()
	out := []int64{}
	for pos := int64(0); pos < Numel(v.Local); {
		to, n := w.Next(pos)
		for i := range n {
			if to < 0 {
				out = append(out, -1)
			} else {
				out = append(out, to+i)
			}
		}
		pos += n
	}
	return out
}

func TestWalkEqualsElementwise(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		rank := 1 + rng.IntN(3)
		shape := make([]int64, rank)
		for d := range shape {
			shape[d] = 1 + rng.Int64N(7)
		}
		dim, tp := rng.IntN(rank), 1+rng.IntN(4)
		s := Split{Dim: dim}
		rest := shape[dim]
		for rest > 0 {
			n := 1 + rng.Int64N(rest)
			rest -= n
			b := Sub{Size: n}
			if n%int64(tp) != 0 { // uneven: draw widths
				b.Widths = make([]int64, tp)
				for range n {
					b.Widths[rng.IntN(tp)]++
				}
			}
			s.Sub = append(s.Sub, b)
		}
		views, err := s.Views(shape, tp)
		if err != nil {
			t.Fatal(err)
		}
		seen := make([]int, Numel(shape))
		for _, v := range views {
			if err := v.Check(); err != nil {
				t.Fatal(err)
			}
			want, got := place(v), walk(v)
			if !slices.Equal(want, got) {
				t.Fatalf("view %+v: walk %v, elementwise %v", v, got, want)
			}
			if inv := v.Invert(); !slices.Equal(place(inv), walk(inv)) {
				t.Fatalf("inverse of %+v: walk %v, elementwise %v", v, walk(inv), place(inv))
			}
			for _, g := range got {
				if g >= 0 {
					seen[g]++
				}
			}
		}
		for g, n := range seen {
			if n != 1 {
				t.Fatalf("element %d of %v is held %d times by %+v", g, shape, n, s)
			}
		}
	}
}

func TestVocabularyPadding(t *testing.T) {
	// 67 rows padded to 72 over two ranks: 36 rows each, the second holds 31.
	views, err := Split{Dim: 0, Pad: 72}.Views([]int64{67, 2}, 2)
	if err != nil {
		t.Fatal(err)
	}
	if views[1].Local[0] != 36 || views[1].Parts[0].Size[0] != 31 {
		t.Fatalf("second rank: local %v, real %v", views[1].Local, views[1].Parts[0].Size)
	}
	got := walk(views[1])
	if got[0] != 72 || got[61] != 133 || got[62] != -1 || len(got) != 72 {
		t.Fatalf("second rank's elements: %v", got)
	}
}

func TestReplicatedHeads(t *testing.T) {
	// Two key/value heads of 3 over four ranks: ranks 0,1 hold head 0.
	views, err := Split{Dim: 0, Sub: []Sub{{Size: 8}, {Size: 6, Heads: 2}}}.Views([]int64{14}, 4)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]int64{{0, 1, 8, 9, 10}, {2, 3, 8, 9, 10}, {4, 5, 11, 12, 13}, {6, 7, 11, 12, 13}}
	for r, v := range views {
		if !slices.Equal(walk(v), want[r]) {
			t.Errorf("rank %d holds %v, want %v", r, walk(v), want[r])
		}
	}
}

func TestSplitRefusals(t *testing.T) {
	for _, c := range []struct {
		s  Split
		tp int
	}{
		{Split{Dim: 2}, 2},
		{Split{Dim: 0}, 4}, // 6 over 4
		{Split{Dim: 0, Sub: []Sub{{Size: 5}}}, 1},
		{Split{Dim: 0, Sub: []Sub{{Size: 6, Widths: []int64{1, 2}}}}, 2},
		{Split{Dim: 0, Sub: []Sub{{Size: 6, Heads: 3}}}, 2},
	} {
		if _, err := c.s.Views([]int64{6, 2}, c.tp); err == nil {
			t.Errorf("%+v over %d ranks was accepted", c.s, c.tp)
		}
	}
}

func TestPartitions(t *testing.T) {
	// A group of 3 elements over 4 ranks is aligned to 8: two each (the case
	// whose recorded padding exceeds a partition).
	if p := FlatPartition(3, 4); p != 2 {
		t.Errorf("partition %d, want 2", p)
	}
	if p := FlatPartition(9986, 2); p != 4994 {
		t.Errorf("partition %d, want 4994", p)
	}
	own, slot := SlicePartition(43, 4, 3)
	if slot != 11 || own != (Range{33, 10}) {
		t.Errorf("slice %v of slot %d, want {33 10} of 11", own, slot)
	}
	if own, _ := SlicePartition(3, 4, 3); own.Len != 0 {
		t.Errorf("rank beyond the end holds %v", own)
	}
}
