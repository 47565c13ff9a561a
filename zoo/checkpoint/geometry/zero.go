package geometry

// Align rounds n up to a multiple of a.
func Align(n, a int64) int64 { return (n + a - 1) / a * a }

// FlatAlign is DeepSpeed's alignment of a flat group in elements per rank
// (nccl_start_alignment_factor).
const FlatAlign = 2

// FlatPartition is the number of elements that each of dp ranks holds of a flat
// group of total elements (ZeRO-1, ZeRO-2 and the BF16 optimizer).
func FlatPartition(total, dp int64) int64 { return Align(total, FlatAlign*dp) / dp }

// A Range is a run of elements.
type Range struct{ Start, Len int64 }

// Intersect gives the common elements of two ranges.
func (r Range) Intersect(o Range) Range {
	a, b := max(r.Start, o.Start), min(r.Start+r.Len, o.Start+o.Len)
	return Range{a, max(b-a, 0)}
}

// SlicePartition is ZeRO-3's and FSDP-1's cut of one parameter: each rank holds
// ceil(numel/dp) elements, the last ones padded. It gives the elements of rank
// r and the size of its slot.
func SlicePartition(numel, dp, r int64) (own Range, slot int64) {
	slot = (numel + dp - 1) / dp
	start := min(r*slot, numel)
	return Range{start, min(slot, numel-start)}, slot
}
