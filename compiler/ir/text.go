package ir

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// The text form of a graph, for goldens, dumps and bug reports:
//
//	onnx graph "g" {
//	  input %x: f32[1xN]
//	  init %w = f32[2]{1, 2}
//	  %y: f32[1xN], _ = Split(%x, _) {axis = 1, sizes = [1, 2]} name "s" domain "a.b"
//	  output %y
//	  info %y
//	}
//
// Parse reads back all that Print wrote: names that are no identifiers are
// quoted, values without a name are numbered, tensors of more than
// inlineElements stand behind the graph as base64 and are referred to by #N.

// inlineElements is the largest tensor that is printed where it is used.
const inlineElements = 32

// Print gives the text form of a graph.
func Print(g *Graph) string {
	p := &printer{seen: map[string]*Value{}, ids: map[*Value]string{}, blobs: map[*tensor.Tensor]int{}}
	p.graph(g, "")
	p.b.WriteByte('\n')
	for i, t := range p.order {
		fmt.Fprintf(&p.b, "#%d %s\n", i, bytesText(t))
	}
	return p.b.String()
}

type printer struct {
	b     strings.Builder
	seen  map[string]*Value // names in sight
	ids   map[*Value]string
	next  int
	blobs map[*tensor.Tensor]int
	order []*tensor.Tensor
}

func isIdent(s string) bool {
	for i, c := range []byte(s) {
		if !isLetter(c) && (i == 0 || !isDigit(c)) {
			return false
		}
	}
	return s != ""
}

func quoteUnlessIdent(s string) string {
	if isIdent(s) && s != "_" {
		return s
	}
	return strconv.Quote(s)
}

// ref is how a value is written. The first value of a name in sight takes the
// name; others have a number before it.
func (p *printer) ref(v *Value) string {
	if v == nil {
		return "_"
	}
	if s, ok := p.ids[v]; ok {
		return s
	}
	if v.Name != "" && p.seen[v.Name] == nil {
		p.seen[v.Name] = v
		p.ids[v] = "%" + quoteUnlessIdent(v.Name)
		return p.ids[v]
	}
	s := "%" + strconv.Itoa(p.next)
	p.next++
	if v.Name != "" {
		s += strconv.Quote(v.Name)
	}
	p.ids[v] = s
	return s
}

// decl writes a value where it is defined.
func (p *printer) decl(v *Value) string {
	s := p.ref(v)
	if v == nil {
		return s
	}
	if t := typeText(v.Type); t != "" {
		s += ": " + t
	}
	return s + notes(v.Doc, v.Meta, v.Extra)
}

// notes are what hangs on a value or an attribute.
func notes(doc string, meta []KV, extra []byte) string {
	var parts []string
	if doc != "" {
		parts = append(parts, "doc "+strconv.Quote(doc))
	}
	for _, kv := range meta {
		parts = append(parts, metaText(kv))
	}
	if len(extra) > 0 {
		parts = append(parts, "extra "+hexText(extra))
	}
	if parts == nil {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func metaText(kv KV) string {
	return "meta " + strconv.Quote(kv.Key) + " = " + strconv.Quote(kv.Value)
}
func hexText(b []byte) string { return `x"` + hex.EncodeToString(b) + `"` }

func (p *printer) graph(g *Graph, indent string) {
	fmt.Fprintf(&p.b, "%s graph %s {\n", g.Level, strconv.Quote(g.Name))
	in := indent + "  "
	line := func(format string, args ...any) {
		p.b.WriteString(in)
		fmt.Fprintf(&p.b, format, args...)
		p.b.WriteByte('\n')
	}
	if g.Doc != "" {
		line("doc %s", strconv.Quote(g.Doc))
	}
	for _, kv := range g.Meta {
		line("%s", metaText(kv))
	}
	if len(g.Extra) > 0 {
		line("extra %s", hexText(g.Extra))
	}
	local := p.lists(g, line)
	for _, n := range g.Nodes {
		p.b.WriteString(in)
		p.node(n, in)
		p.b.WriteByte('\n')
		for _, v := range n.Outputs {
			local[v] = true
		}
	}
	for _, v := range g.Outputs {
		line("output %s", p.ref(v))
	}
	for _, v := range g.Infos {
		if local[v] {
			line("info %s", p.ref(v))
		} else {
			line("orphan %s", p.decl(v))
		}
	}
	p.b.WriteString(indent + "}")
	p.leave(g, local)
}

// lists writes inputs and initializers and gives the values defined by them.
func (p *printer) lists(g *Graph, line func(string, ...any)) map[*Value]bool {
	local := map[*Value]bool{}
	for _, v := range g.Inputs {
		line("input %s", p.decl(v))
		local[v] = true
	}
	for _, v := range g.Inits {
		s := p.ref(v)
		if !local[v] {
			if t := typeText(v.Type); v.Const == nil || t != typeText(TensorType(v.Const.DType, v.Const.Shape...)) {
				s += ": " + typeOrNone(v.Type)
			}
			s += notes(v.Doc, v.Meta, v.Extra)
		}
		line("init %s = %s", s, p.tensor(v.Const))
		local[v] = true
	}
	return local
}

// leave forgets a graph's names: siblings may use them again.
func (p *printer) leave(g *Graph, local map[*Value]bool) {
	for _, v := range g.Infos {
		local[v] = true
	}
	for v := range local {
		if v != nil && p.seen[v.Name] == v {
			delete(p.seen, v.Name)
		}
	}
}

func (p *printer) node(n *Node, indent string) {
	for i, v := range n.Outputs {
		if i > 0 {
			p.b.WriteString(", ")
		}
		p.b.WriteString(p.decl(v))
	}
	if len(n.Outputs) > 0 {
		p.b.WriteString(" = ")
	} else {
		p.b.WriteString("= ")
	}
	p.b.WriteString(quoteUnlessIdent(n.Op) + "(")
	for i, v := range n.Inputs {
		if i > 0 {
			p.b.WriteString(", ")
		}
		p.b.WriteString(p.ref(v))
	}
	p.b.WriteByte(')')
	if len(n.Attrs) > 0 {
		p.b.WriteString(" {")
		for i, a := range n.Attrs {
			if i > 0 {
				p.b.WriteString(", ")
			}
			p.b.WriteString(quoteUnlessIdent(a.Name) + " = ")
			p.value(a.Val, indent)
			p.b.WriteString(notes(a.Doc, nil, a.Extra))
		}
		p.b.WriteByte('}')
	}
	for _, f := range [...][2]string{{"name", n.Name}, {"domain", n.Domain}, {"overload", n.Overload}, {"origin", n.Origin}, {"doc", n.Doc}} {
		if f[1] != "" {
			p.b.WriteString(" " + f[0] + " " + strconv.Quote(f[1]))
		}
	}
	for _, kv := range n.Meta {
		p.b.WriteString(" " + metaText(kv))
	}
	if len(n.Extra) > 0 {
		p.b.WriteString(" extra " + hexText(n.Extra))
	}
}

func (p *printer) value(val any, indent string) {
	list := func(kind string, n int, f func(i int)) {
		p.b.WriteString(kind + "[")
		for i := range n {
			if i > 0 {
				p.b.WriteString(", ")
			}
			f(i)
		}
		p.b.WriteByte(']')
	}
	switch v := val.(type) {
	case int64:
		p.b.WriteString(strconv.FormatInt(v, 10))
	case float32:
		p.b.WriteString(floatText(v))
	case string:
		p.b.WriteString(strconv.Quote(v))
	case *tensor.Tensor:
		p.b.WriteString(p.tensor(v))
	case *Graph:
		p.graph(v, indent)
	case Type:
		p.b.WriteString("type " + typeOrNone(v))
	case Ref:
		fmt.Fprintf(&p.b, "ref %s %d", strconv.Quote(v.Name), v.Kind)
	case Raw:
		p.b.WriteString("raw " + hexText(v.Bytes))
	case []int64:
		list("", len(v), func(i int) { p.b.WriteString(strconv.FormatInt(v[i], 10)) })
	case []float32:
		list("floats", len(v), func(i int) { p.b.WriteString(floatText(v[i])) })
	case []string:
		list("strings", len(v), func(i int) { p.b.WriteString(strconv.Quote(v[i])) })
	case []*tensor.Tensor:
		list("tensors", len(v), func(i int) { p.b.WriteString(p.tensor(v[i])) })
	case []*Graph:
		list("graphs", len(v), func(i int) { p.graph(v[i], indent) })
	case []Type:
		list("types", len(v), func(i int) { p.b.WriteString(typeOrNone(v[i])) })
	default:
		panic(fmt.Sprintf("BUG: ir.Print: attribute value of type %T", val))
	}
}

// floatText always differs from an integer; a NaN shows its bits.
func floatText(f float32) string {
	if f != f {
		return fmt.Sprintf("nan:%08x", math.Float32bits(f))
	}
	s := strconv.FormatFloat(float64(f), 'g', -1, 32)
	if !strings.ContainsAny(s, ".eI") {
		s += ".0"
	}
	return s
}

// tensor writes a tensor: its elements, or a blob's number.
func (p *printer) tensor(t *tensor.Tensor) string {
	if t == nil {
		return "none"
	}
	head := t.DType.String() + tensor.ShapeString(t.Shape)
	if n := t.Len(); n <= inlineElements || t.DType == tensor.String {
		return head + elementsText(t)
	}
	i, ok := p.blobs[t]
	if !ok {
		i = len(p.order)
		p.blobs[t] = i
		p.order = append(p.order, t)
	}
	return head + "#" + strconv.Itoa(i)
}

// elementsText writes the elements as numbers if that loses nothing, else as
// hexadecimal bytes.
func elementsText(t *tensor.Tensor) string {
	if t.DType == tensor.String {
		parts := make([]string, t.Len())
		for i, s := range t.Strings() {
			parts[i] = strconv.Quote(s)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	parts := make([]string, t.Len())
	for i := range parts {
		switch t.DType.Kind() {
		case tensor.KindFloat:
			parts[i] = strconv.FormatFloat(t.Float(i), 'g', -1, floatBits(t.DType))
		case tensor.KindUint:
			parts[i] = strconv.FormatUint(t.Uint(i), 10)
		case tensor.KindComplex:
			return hexText(t.Bytes())
		default:
			parts[i] = strconv.FormatInt(t.Int(i), 10)
		}
	}
	back, err := elements(t.DType, t.Shape, parts)
	if err != nil || !tensor.Equal(back, t) {
		return hexText(t.Bytes())
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func floatBits(d tensor.DType) int {
	if d == tensor.F64 {
		return 64
	}
	return 32
}

func bytesText(t *tensor.Tensor) string {
	return `b64"` + base64.StdEncoding.EncodeToString(t.Bytes()) + `"`
}

// typeText is Type.String with names quoted where needed; empty for no type.
func typeText(t Type) string {
	if t.Form == FormNone && t.Denotation == "" {
		return ""
	}
	return typeOrNone(t)
}

func typeOrNone(t Type) string {
	var s string
	elem := func() string {
		if t.Elem == nil {
			return ""
		}
		return typeOrNone(*t.Elem)
	}
	switch t.Form {
	case FormNone:
		s = "none"
	case FormSequence:
		s = "seq(" + elem() + ")"
	case FormOptional:
		s = "optional(" + elem() + ")"
	case FormMap:
		s = "map(" + t.Key.String() + ", " + elem() + ")"
	case FormOpaque:
		s = "opaque(" + strconv.Quote(t.Opaque[0]) + ", " + strconv.Quote(t.Opaque[1]) + ")"
	case FormSparse:
		s = "sparse " + t.DType.String() + shapeText(t)
	default:
		s = t.DType.String() + shapeText(t)
	}
	if t.Denotation != "" {
		s += "@" + strconv.Quote(t.Denotation)
	}
	return s
}

func shapeText(t Type) string {
	if !t.HasRank {
		return "[...]"
	}
	parts := make([]string, len(t.Shape))
	for i, d := range t.Shape {
		param := d.Param
		if param != "" && (!isIdent(param) || strings.Contains(param, "x")) {
			param = strconv.Quote(param)
		}
		switch {
		case d.N >= 0 && param != "":
			parts[i] = strconv.Itoa(d.N) + ":" + param
		case d.N >= 0:
			parts[i] = strconv.Itoa(d.N)
		case param != "":
			parts[i] = param
		default:
			parts[i] = "?"
		}
		if d.Denotation != "" {
			parts[i] += "@" + strconv.Quote(d.Denotation)
		}
	}
	return "[" + strings.Join(parts, "x") + "]"
}
