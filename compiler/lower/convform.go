package lower

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// The forms of a tiled convolution.
const (
	formDirect    = "direct"    // channel blocks in and out
	formPlanar    = "planar"    // few input channels, which stay row-major
	formDepthwise = "depthwise" // a filter per channel, lanes are channels
	formPixels    = "pixels"    // lanes are neighbouring pixels of a row
	formGroups    = "groups"    // channel blocks that groups share
	formWinograd  = "winograd"  // with the tile's size behind it
	formInt8      = "int8"      // direct, products of bytes
	formBF16      = "bf16"      // direct, products of bfloat16 values
)

// decide picks the form, false if none serves.
func (c *tiledConv) decide(l *lowerer, n *ir.Node) bool {
	lanes, g := l.o.Lanes, c.Groups
	c.mode = l.mode(n)
	c.exact = slices.ContainsFunc(l.uses[n.Outputs[0]], func(u *ir.Node) bool { return u.Op == "cast" && u.Outputs[0].DType().IsInteger() })
	blocks := func(n int) int { return (n + lanes - 1) / lanes }
	c.icb, c.ocb = blocks(c.ic), blocks(c.oc)
	var heuristic string
	var possible []string
	cycles := 0.0 // of the heuristic's form, where a matrix unit may be faster
	blocked := l.fromBlocks(n.Inputs[0])
	halves, short := operands{kind: loop.TileBF16}, l.halves(c.mode) && c.ic/g >= 8
	if c.rowwiseFits(lanes) {
		heuristic, possible = formPixels, []string{formPixels}
	}
	switch {
	case g == 1:
		form := formDirect
		if c.ic < lanes {
			if !blocked {
				form = formPlanar
			}
			possible = append(possible, formPlanar)
		}
		possible = append(possible, formDirect)
		for _, m := range c.winograds(l) {
			possible = append(possible, formWinograd+strconv.Itoa(m))
		}
		switch {
		case heuristic != "" && c.oc*4 <= lanes*3 && !(blocked && c.blocksPay(lanes)):
		case heuristic == "" && c.oc*4 <= lanes && c.ic*c.Kernel[1] >= 2*lanes && c.Kernel[1] >= lanes:
			// Long rows of few outputs: the general nest has them in its lanes.
		default:
			heuristic = form
			relative := 1.0
			if short {
				heuristic, relative = formBF16, 0.5
			}
			m, vectors := c.chooseWinograd(l, relative)
			cycles = vectors / vectorsPerCycle
			if m > 0 {
				heuristic = formWinograd + strconv.Itoa(m)
				cycles = vectors / transformedPerCycle
			}
		}
	case g == c.ic && g == c.oc:
		possible = append(possible, formDepthwise)
		// Moving pixels into blocks takes longer than the convolution.
		if g*2 >= lanes && (heuristic == "" || blocked) {
			heuristic = formDepthwise
		}
	case (c.ic/g)%lanes == 0 && (c.oc/g)%lanes == 0:
		heuristic, possible = formDirect, append(possible, formDirect)
		cycles = float64(c.ocb*c.Out[0]*c.Out[1]*c.Kernel[0]*c.Kernel[1]*c.ic/g) / vectorsPerCycle
		if short {
			heuristic = formBF16
		}
	default:
		if c.groups = c.planGroups(lanes); c.groups != nil {
			possible = append(possible, formGroups)
			if heuristic == "" || c.groupsPay(lanes, blocked) {
				heuristic = formGroups
			}
		}
	}
	if short && slices.Contains(possible, formDirect) {
		possible = append(possible, formBF16)
	}
	c.tight = g == 1 && c.ic <= packedChannels && !blocked && c.Kernel[1] <= packedPixels && c.Strides[1] <= packedPixels && c.Dilations[1] == 1
	var units []matrixForm
	if n.Outputs[0].DType() == tensor.F32 {
		units = c.matrixForms(l, n.Inputs[0].Static()[0], c.winograds(l))
	}
	tight := c.tight
	c.tight = false // bytes are not
	cycles *= float64(n.Inputs[0].Static()[0]) / float64(max(l.o.Threads, 1))
	for _, f := range units {
		possible = append(possible, f.name)
		if f.cycles < cycles {
			heuristic, cycles = f.name, f.cycles
		}
	}
	bytes, ok := l.bytes(n.Inputs[0], c.w, c.ic/g*c.Kernel[0]*c.Kernel[1])
	if ok && (bytes.center == 0 || g == 1 && c.pointwise()) && (g == 1 && c.ic >= 4 || g > 1 && slices.Contains(possible, formDirect)) {
		possible = append(possible, formInt8)
		if heuristic != formPixels && heuristic != "" {
			heuristic = formInt8
		}
		images := n.Inputs[0].Static()[0]
		if f, ok := c.byteForm(l, images, bytes); ok {
			possible = append(possible, f.name)
			units = append(units, f)
			vectors := float64(images*c.ocb*c.Out[0]*c.Out[1]*c.Kernel[0]*c.Kernel[1]) * float64((c.ic/g+3)/4)
			if heuristic == formInt8 && f.cycles < vectors/vectorsPerCycle/float64(max(l.o.Threads, 1)) {
				heuristic = f.name
			}
		}
	}
	across := ok && bytes.center == 0 && slices.Contains(possible, formDepthwise) && c.Dilations[1] == 1 && c.Kernel[0]*c.Kernel[1] <= maxAcross
	if across {
		possible = append(possible, formInt8)
		if heuristic == formDepthwise {
			heuristic = formInt8
		}
	}
	if n.Outputs[0].DType() == tensor.I32 {
		if !slices.Contains(possible, formInt8) {
			return false
		}
		possible = possible[slices.Index(possible, formInt8):]
		if heuristic != formAMXInt8 {
			heuristic = formInt8
		}
	}
	if heuristic == "" {
		return false
	}
	c.site = l.siteOf(n, fmt.Sprintf("conv x%s w%s stride%s dilation%s pad%s,%s groups%d", dims(n.Inputs[0].Static()), dims(n.Inputs[1].Static()),
		dims(c.Strides), dims(c.Dilations), dims(c.Lo), dims(c.Hi), g))
	form := c.site.form(heuristic, possible...)
	if form != formGroups {
		c.groups = nil
	}
	i := slices.IndexFunc(units, func(f matrixForm) bool { return f.name == form })
	c.tight = tight && i >= 0 && form != formAMXInt8
	switch form {
	case formGroups:
	case formPixels:
		c.rowwise = true
	case formDepthwise:
		c.depthwise = true
	case formInt8:
		if c.operands = bytes; across {
			c.depthwise = true
			return true
		}
		c.groupWidth, c.icb = c.ocb/g, blocks(c.ic/g)
	case formPlanar:
		c.planar, c.groupWidth = true, c.ocb
	default:
		switch form {
		case formAMXInt8:
			c.operands = bytes
		case formBF16:
			c.operands = halves
		case formAMX:
			if !c.tight { // few channels are rounded on their way into scratch
				c.operands = halves
			}
		}
		c.groupWidth = c.ocb / g
		c.icb = blocks(c.ic / g)
		if i >= 0 {
			c.planar = c.tight
			c.wino, c.parts = units[i].wino, units[i].parts
		} else if m, ok := strings.CutPrefix(form, formWinograd); ok {
			c.wino, _ = strconv.Atoi(m)
		}
	}
	return true
}

// blocksPay reports whether an input in channel blocks is better left there,
// although few output channels fill few lanes: in vector multiply-adds for each
// point, where moving a number into another layout costs about as much as one.
func (c *tiledConv) blocksPay(lanes int) bool {
	kk, area := c.Kernel[0]*c.Kernel[1], c.Strides[0]*c.Strides[1]
	pixels := c.ic*kk*c.oc/lanes + c.ic*area + c.oc
	return c.icb*lanes*kk*c.ocb < pixels
}

// fromBlocks reports whether a value is computed from a convolution that gives
// channel blocks, by nothing but elementwise ops and windows.
func (l *lowerer) fromBlocks(v *ir.Value) bool {
	if v.Def == nil || v.Rank() != 4 {
		return false
	}
	if b, ok := l.blocky[v]; ok {
		return b
	}
	l.blocky[v] = false
	b := false
	switch n := v.Def; {
	case n.Op == "conv":
		c := l.tiled(n)
		b = c != nil && !c.rowwise
	case n.Op == "window_max", n.Op == "window_sum":
		b = l.fromBlocks(n.Inputs[0])
	case core.Lookup(n.Op).Class == core.Pointwise:
		for _, x := range n.Inputs {
			b = b || l.fromBlocks(x)
		}
	}
	l.blocky[v] = b
	return b
}

// dims joins sizes as ONNX users write shapes.
func dims(s []int) string {
	out := make([]string, len(s))
	for i, d := range s {
		out[i] = strconv.Itoa(d)
	}
	return strings.Join(out, "x")
}
