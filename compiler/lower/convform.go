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

// convMenu are the forms that a convolution may take and the one that the
// heuristic picks, "" if none.
type convMenu struct {
	heuristic string
	possible  []string
	cycles    float64      // of the heuristic's form, where a matrix unit may be faster
	units     []matrixForm // of those among the possible ones
	bytes     operands
	across    bool // bytes are a depthwise form's
	narrow    bool // a pixel's bytes are one group of a product
}

// decide picks the form, false if none serves.
func (c *tiledConv) decide(l *lowerer, n *ir.Node) bool {
	lanes := l.o.Lanes
	c.mode = l.mode(n)
	c.exact = slices.ContainsFunc(l.uses[n.Outputs[0]], func(u *ir.Node) bool { return u.Op == "cast" && u.Outputs[0].DType().IsInteger() })
	c.icb, c.ocb, c.icl = blocksOf(c.ic, lanes), blocksOf(c.oc, lanes), lanes
	if c.slots != nil {
		c.site = l.siteOf(n, fmt.Sprintf("conv x%s w%s stride%s picked%s", dims(n.Inputs[0].Static()), dims(n.Inputs[1].Static()), dims(c.Strides), c.pickedName(lanes)))
		c.take(convMenu{}, c.site.form(formDirect, formDirect), false, lanes)
		return true
	}
	blocked := l.fromBlocks(n.Inputs[0])
	c.piece = l.pieceOf(n.Outputs[0], 0) || n.Inputs[0].Def != nil && n.Inputs[0].Def.Int(inPieces, 0) == 1
	c.ends = l.ends(n.Outputs[0])
	m := c.vectorForms(l, blocked)
	c.tight = c.Groups == 1 && c.ic <= packedChannels && !blocked && c.Kernel[1] <= packedPixels && c.Strides[1] <= packedPixels && c.Dilations[1] == 1
	images := n.Inputs[0].Static()[0]
	if m.cycles *= float64(images) / float64(max(l.o.Threads, 1)); n.Outputs[0].DType() == tensor.F32 {
		c.unitForms(l, &m, images)
	}
	tight := c.tight
	c.tight = false // bytes are not
	c.byteForms(l, &m, n.Inputs[0], n.Inputs[1])
	m.narrow = !blocked && c.Groups == 1 && c.ic <= loop.TileU8S8.Group() && m.bytes.center == 0
	if n.Outputs[0].DType() == tensor.I32 && !m.wholeOnly() || m.heuristic == "" {
		return false
	}
	c.site = l.siteOf(n, fmt.Sprintf("conv x%s w%s stride%s dilation%s pad%s,%s groups%d", dims(n.Inputs[0].Static()), dims(n.Inputs[1].Static()),
		dims(c.Strides), dims(c.Dilations), dims(c.Lo), dims(c.Hi), c.Groups))
	c.take(m, c.site.form(m.heuristic, m.possible...), tight, lanes)
	return true
}

// blocksOf is how many blocks of lanes n channels fill.
func blocksOf(n, lanes int) int { return (n + lanes - 1) / lanes }

// vectorForms are the forms on vectors of floats.
func (c *tiledConv) vectorForms(l *lowerer, blocked bool) convMenu {
	lanes, g := l.o.Lanes, c.Groups
	var m convMenu
	short := l.halves(c.mode) && c.ic/g >= 8
	if c.rowwiseFits(lanes) {
		m.heuristic, m.possible = formPixels, []string{formPixels}
	}
	switch {
	case g == 1:
		c.denseForms(l, &m, blocked, short)
	case g == c.ic && g == c.oc:
		m.possible = append(m.possible, formDepthwise)
		// Moving pixels into blocks takes longer than the convolution.
		if (g*2 >= lanes || c.piece) && (m.heuristic == "" || blocked) {
			m.heuristic = formDepthwise
		}
	case (c.ic/g)%lanes == 0 && (c.oc/g)%lanes == 0:
		m.possible = append(m.possible, formDirect)
		c.addWinograds(l, &m)
		c.blockForms(l, &m, formDirect, short)
	default:
		if c.groups = c.planGroups(lanes); c.groups != nil {
			m.possible = append(m.possible, formGroups)
			if m.heuristic == "" || c.groupsPay(lanes, blocked) {
				m.heuristic = formGroups
			}
		}
	}
	if short && slices.Contains(m.possible, formDirect) {
		m.possible = append(m.possible, formBF16)
	}
	return m
}

// denseForms are those of one group.
func (c *tiledConv) denseForms(l *lowerer, m *convMenu, blocked, short bool) {
	lanes, form := l.o.Lanes, formDirect
	if c.ic < lanes {
		if !blocked {
			form = formPlanar
		}
		m.possible = append(m.possible, formPlanar)
	}
	m.possible = append(m.possible, formDirect)
	c.addWinograds(l, m)
	switch {
	case m.heuristic != "" && c.oc*4 <= lanes*3 && !(blocked && c.blocksPay(lanes)) && !c.piece:
	case m.heuristic != "" && !blocked && c.rowsPay(lanes):
	case m.heuristic == "" && c.oc*4 <= lanes && c.ic*c.Kernel[1] >= 2*lanes && c.Kernel[1] >= lanes:
		// Long rows of few outputs: the general nest has them in its lanes.
	default:
		c.blockForms(l, m, form, short)
	}
}

// addWinograds lists Winograd's forms among the possible ones.
func (c *tiledConv) addWinograds(l *lowerer, m *convMenu) {
	for _, size := range c.winograds(l) {
		m.possible = append(m.possible, formWinograd+strconv.Itoa(size))
	}
}

// blockForms picks between a form on channel blocks and Winograd's.
func (c *tiledConv) blockForms(l *lowerer, m *convMenu, form string, short bool) {
	m.heuristic = form
	relative := 1.0
	if short {
		m.heuristic, relative = formBF16, 0.5
	}
	size, vectors := c.chooseWinograd(l, relative)
	m.cycles = vectors / vectorsPerCycle
	if size > 0 {
		m.heuristic = formWinograd + strconv.Itoa(size)
		m.cycles = vectors / transformedPerCycle
	}
}

// unitForms adds the forms on a matrix unit of floats in parts.
func (c *tiledConv) unitForms(l *lowerer, m *convMenu, images int) {
	m.units = c.matrixForms(l, images, c.winograds(l))
	for _, f := range m.units {
		m.possible = append(m.possible, f.name)
		if f.cycles < m.cycles {
			m.heuristic, m.cycles = f.name, f.cycles
		}
	}
}

// byteForms adds the forms on bytes, where the operands are such.
func (c *tiledConv) byteForms(l *lowerer, m *convMenu, x, w *ir.Value) {
	g, kk := c.Groups, c.Kernel[0]*c.Kernel[1]
	bytes, ok := l.bytes(x, w, c.ic/g*kk)
	if !ok {
		return
	}
	m.bytes = bytes
	if (bytes.center == 0 || g == 1 && c.pointwise()) && (g == 1 && c.ic*kk >= loop.TileU8S8.Group() || g > 1 && slices.Contains(m.possible, formDirect)) {
		m.possible = append(m.possible, formInt8)
		if m.heuristic != formPixels && m.heuristic != "" {
			m.heuristic = formInt8
		}
		images := x.Static()[0]
		if f, ok := c.byteForm(l, images, bytes); ok {
			m.possible = append(m.possible, f.name)
			m.units = append(m.units, f)
			vectors := float64(images*c.ocb*c.Out[0]*c.Out[1]*kk) * float64((c.ic/g+3)/4)
			if m.heuristic == formInt8 && f.cycles < vectors/vectorsPerCycle/float64(max(l.o.Threads, 1)) {
				m.heuristic = f.name
			}
		}
	}
	if bytes.center == 0 && slices.Contains(m.possible, formDepthwise) && c.Dilations[1] == 1 && kk <= maxAcross {
		m.across = true
		m.possible = append(m.possible, formInt8)
		if m.heuristic == formDepthwise || m.heuristic == formPixels && g >= l.o.Lanes { // bytes move fast
			m.heuristic = formInt8
		}
	}
}

// wholeOnly leaves the forms whose sums are whole numbers; false if there are
// none.
func (m *convMenu) wholeOnly() bool {
	i := slices.Index(m.possible, formInt8)
	if i < 0 {
		return false
	}
	m.possible = m.possible[i:]
	if m.heuristic != formAMXInt8 {
		m.heuristic = formInt8
	}
	return true
}

// take sets what a form of the menu means for the geometry. tight says that
// the pixels of a row may lie side by side in a matrix unit's rows.
func (c *tiledConv) take(m convMenu, form string, tight bool, lanes int) {
	if form != formGroups {
		c.groups = nil
	}
	i := slices.IndexFunc(m.units, func(f matrixForm) bool { return f.name == form })
	c.tight = tight && i >= 0 && form != formAMXInt8
	switch form {
	case formGroups:
		return
	case formPixels:
		c.rowwise = true
		return
	case formDepthwise:
		c.depthwise = true
		return
	case formPlanar:
		c.planar, c.groupWidth = true, c.ocb
		return
	case formInt8:
		if c.operands = m.bytes; m.across {
			c.depthwise = true
			return
		}
		if m.narrow {
			c.icl = loop.TileU8S8.Group()
		}
	case formAMXInt8:
		c.operands = m.bytes
	case formBF16:
		c.operands = operands{kind: loop.TileBF16}
	case formAMX:
		if !c.tight { // few channels are rounded on their way into scratch
			c.operands = operands{kind: loop.TileBF16}
		}
	}
	c.groupWidth, c.icb = c.ocb/c.Groups, blocksOf(c.ic/c.Groups, lanes)
	if i >= 0 {
		c.planar = c.tight
		c.wino, c.parts = m.units[i].wino, m.units[i].parts
	} else if size, ok := strings.CutPrefix(form, formWinograd); ok {
		c.wino, _ = strconv.Atoi(size)
	}
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
	case n.Op == "window_max", n.Op == "window_sum", n.Op == "slice" && n.Int(inPieces, 0) == 1:
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
