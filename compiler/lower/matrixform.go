package lower

import (
	"math"
	"slices"

	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/schedule"
)

// The forms of a contraction on a matrix unit of bfloat16, by the number of
// parts of its operands; Winograd's have theirs in front.
const (
	formAMX  = "amx"
	formAMX3 = "amx3" // two parts, three products
	formAMX6 = "amx6" // three parts, six products
)

// partForms are the forms by parts, and the precision that each needs: by itself,
// and with Winograd's transforms, which magnify the error of products about ten
// times. Those of one part are then useless.
var partForms = [...]struct {
	name              string
	need, transformed precision.Mode
}{
	1: {formAMX, precision.BF16, ""},
	2: {formAMX3, precision.Fast, precision.F16},
	3: {formAMX6, precision.F32, precision.F32},
}

// What a matrix unit takes, in cycles, by the number of parts, 0 for bytes, as
// measured on prototypes of whole layers (see RATIONALE): a step of two runs of
// rows with two vectors of outputs, all its products and loads from the second
// cache, and a step of one run.
var (
	pairCycles   = [...]float64{110, 110, 290, 620}
	singleCycles = [...]float64{68, 68, 165, 340}
	// splitCycles is a vector of the input being split, looked at and stored.
	splitCycles = [...]float64{1, 3, 6, 9}
)

const (
	epilogueCycles = 6       // a vector of outputs, looked at and stored
	regionCycles   = 600     // the unit's configuration, and the loops around a chunk
	scratchBytes   = 1 << 20 // of a chunk: about half of the second cache
	nearWeights    = 3 << 19 // bytes that the second cache keeps beside a chunk
	farCycles      = 4.0 / 64
)

// hasMatrix reports whether the target has a matrix unit for bfloat16.
func (l *lowerer) hasMatrix() bool { return l.o.Lanes == loop.MatrixLanes && l.has("amx-bf16") }

// partsIn lists in how many parts numbers may be multiplied in a mode.
func (l *lowerer) partsIn(m precision.Mode) (list []int) {
	if !l.hasMatrix() || m == precision.IEEE {
		return nil
	}
	for i := 1; i < len(partForms); i++ {
		if m.Allows(partForms[i].need) {
			list = append(list, i)
		}
	}
	return list
}

// sizes are the sizes of chunks that are worth a look: equal parts of a map.
func (s *staging) sizes() (list []int) {
	most := s.th
	if s.th == 1 {
		most = s.tw
	}
	for n := 1; n <= most && len(list) < 40; n++ {
		if r := (most + n - 1) / n; len(list) == 0 || list[len(list)-1] != r {
			list = append(list, r)
		}
	}
	return list
}

// cut makes chunks of a size: rows, or columns where there is one row.
func (s *staging) cut(size int) chunk {
	if s.th == 1 {
		return chunk{1, size, 1, (s.tw + size - 1) / size}
	}
	return chunk{size, s.tw, (s.th + size - 1) / size, 1}
}

// partsCost is about how many cycles a chunk takes for a part of the outputs, and
// the scratch that it needs.
func (c *tiledConv) partsCost(s staging, parts, icb, per int) (cycles float64, bytes int) {
	freqs, points, units := s.wg.freqs(), s.inARow(), s.units()
	kb := c.unitBlocks(icb)
	bytes = freqs * parts * kb * units * unitSteps * 2
	if c.tight {
		bytes = parts * units * s.unitLen * 2
	}
	if c.kind == loop.TileU8S8 {
		parts = 0
	}
	vectors := float64(icb * units * freqs)
	if c.tight {
		vectors *= float64(s.unitLen) / loop.MatrixLanes
	}
	outs := float64(per * points * freqs)
	cycles = regionCycles + vectors*splitCycles[parts] + outs*epilogueCycles
	if freqs > 1 {
		bytes += freqs * per * points * loop.MatrixLanes * 4
		cycles += 9*vectors + outs // the transforms
	}
	rows := runs(points)
	pairs, single := points/(2*rows), 0
	switch rest := points % (2 * rows); {
	case rest > rows:
		pairs++
	case rest > 0:
		single = 1
	}
	tiles := float64(pairs)*pairCycles[parts] + float64(single)*singleCycles[parts]
	groups := float64(per/2) + 0.6*float64(per%2)
	cycles += float64(freqs*kb*s.steps()) * groups * tiles
	// Weights that the second cache does not keep come from beyond for every chunk.
	block := float64(freqs * kb * s.steps() * parts * unitW * 2)
	if all := block * float64(c.ocb/c.Groups); all > nearWeights {
		cycles += farCycles * block * float64(per) * (1 - nearWeights/all)
	}
	return cycles, bytes
}

// bestParts is the best size of chunks and number of parts of the outputs, and
// about how many cycles each of the threads then has. Every part of the outputs
// transforms the input for itself.
func (c *tiledConv) bestParts(s staging, parts, icb, images, threads int) (size, split int, cycles float64) {
	cycles = math.Inf(1)
	width := c.ocb / c.Groups
	least := math.MaxInt
	for _, r := range s.sizes() {
		s.chunk = s.cut(r)
		for _, p := range []int{1, 2, threads, 2 * threads} {
			if width%p != 0 || p > 2*threads {
				continue
			}
			one, bytes := c.partsCost(s, parts, icb, width/p)
			if bytes > scratchBytes && bytes >= least { // beyond the cache: the smallest
				continue
			}
			n := images * s.down * s.across * p * c.Groups
			total := one * float64((n+threads-1)/threads)
			if total < cycles || least > scratchBytes && bytes < least {
				size, split, cycles, least = r, p, total, bytes
			}
		}
	}
	return size, split, cycles
}

// divideParts decides the size of the chunks and into how many parts the outputs
// are cut.
func (t *convTile) divideParts(l *lowerer) (size, split int) {
	size, split, _ = t.bestParts(t.staging, t.parts, t.icb, t.y.layout.Shape[0], max(l.o.Threads, 1))
	size = l.number(t.site, func(c *schedule.Choice) *int { return &c.Rows }, size, t.sizes()...)
	return size, split
}

// matrixForm is a form of a convolution on a matrix unit.
type matrixForm struct {
	name        string
	wino, parts int
	cycles      float64
}

// mostTerms bounds the products of a step that are written out.
const mostTerms = 160

// matrixForms lists the forms on a matrix unit that the mode and the weights
// allow.
func (c *tiledConv) matrixForms(l *lowerer, images int, winograds []int) (list []matrixForm) {
	icg, width := c.ic/c.Groups, c.ocb/c.Groups
	parts := l.partsIn(c.mode)
	if len(parts) == 0 || icg < l.o.Lanes && !c.tight || c.oc < l.o.Lanes || c.Groups > 1 && (icg%l.o.Lanes != 0 || c.oc/c.Groups%l.o.Lanes != 0) || width == 0 {
		return nil
	}
	most, direct := trusts(c.w, leastWeight, mostWeight)
	_, transformed := trusts(c.w, leastTransformed, 1/leastTransformed)
	c.mostWeight = most
	icb := (icg + l.o.Lanes - 1) / l.o.Lanes
	dense := c.Groups*c.Strides[0]*c.Strides[1] == 1 // others were not measured
	add := func(name string, wino, p int, s staging) {
		_, _, cycles := c.bestParts(s, p, icb, images, max(l.o.Threads, 1))
		list = append(list, matrixForm{name, wino, p, cycles})
	}
	for _, p := range parts {
		s := c.stage(0, c.Out[0], c.Out[1])
		if c.pointwise() {
			s = c.stage(0, 1, c.Out[0]*c.Out[1])
		}
		if (direct || p == 1) && (len(s.phases) == 1 || len(s.taps)*len(partTerms[p]) <= mostTerms) {
			add(partForms[p].name, 0, p, s)
		}
		if p > 1 && transformed && !c.tight && c.mode.Allows(partForms[p].transformed) && dense && slices.Contains(winograds, 4) {
			add(formWinograd+"4-"+partForms[p].name, 4, p, c.stage(4, c.Out[0], c.Out[1]))
		}
	}
	return list
}

// byteForm is the form of a convolution of bytes on a matrix unit, if the target
// has one and it can be.
func (c *tiledConv) byteForm(l *lowerer, images int, bytes operands) (f matrixForm, ok bool) {
	icg, width := c.ic/c.Groups, c.ocb/c.Groups
	if !l.bytesOnUnit() || c.oc < l.o.Lanes || icg < l.o.Lanes || width == 0 || c.Groups > 1 && (icg%l.o.Lanes != 0 || c.oc/c.Groups%l.o.Lanes != 0) {
		return f, false
	}
	b := *c
	b.operands = bytes
	s := b.stage(0, c.Out[0], c.Out[1])
	if c.pointwise() {
		s = b.stage(0, 1, c.Out[0]*c.Out[1])
	}
	if len(s.phases) > 1 && len(s.taps) > mostTerms {
		return f, false
	}
	icb := (icg + l.o.Lanes - 1) / l.o.Lanes
	_, _, cycles := b.bestParts(s, 1, icb, images, max(l.o.Threads, 1))
	return matrixForm{formAMXInt8, 0, 1, cycles}, true
}
