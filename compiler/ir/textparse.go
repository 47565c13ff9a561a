package ir

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// maxTextDepth bounds the nesting of graphs and types in a text.
const maxTextDepth = 100

// Parse reads the text form of a graph. Its errors are *TextError. It checks
// the text, not the graph: Verify does that.
func Parse(text string) (g *Graph, err error) {
	p := &parser{scanner: scanner{s: text}, blobs: map[int][]blobUse{}}
	defer func() {
		switch e := recover().(type) {
		case nil:
		case *TextError:
			g, err = nil, e
		default:
			panic(e)
		}
	}()
	g = p.graph()
	p.blobSection()
	return g, nil
}

type parser struct {
	scanner
	scopes []map[string]*Value
	depth  int
	blobs  map[int][]blobUse
}

// blobUse is a tensor whose bytes stand behind the graph.
type blobUse struct {
	t   *tensor.Tensor
	set func(*tensor.Tensor)
}

func (p *parser) enter() {
	if p.depth++; p.depth > maxTextDepth {
		p.fail("graphs or types nest deeper than %d", maxTextDepth)
	}
}

// key reads %name, %"name", %12 or %12"name": the spelling that identifies the
// value, and its name.
func (p *parser) key() (key, name string) {
	p.expect("%")
	switch c := p.here(); {
	case isDigit(c):
		key = strconv.Itoa(p.digits())
		if p.here() == '"' {
			name = p.str()
		}
		return key, name
	case c == '"':
		name = p.str()
	default:
		name = p.word()
	}
	if name == "" {
		p.fail("expected a value's name, found %s", p.found())
	}
	return `"` + name, name
}

func (p *parser) find(key string) *Value {
	for i := len(p.scopes) - 1; i >= 0; i-- {
		if v := p.scopes[i][key]; v != nil {
			return v
		}
	}
	return nil
}

// use reads a value that was defined before; _ is an omitted one.
func (p *parser) use() *Value {
	if p.acceptWord("_") {
		return nil
	}
	key, _ := p.key()
	v := p.find(key)
	if v == nil {
		p.fail("value %q is not defined before it is used", strings.TrimPrefix(key, `"`))
	}
	return v
}

// decl reads a value where it is defined.
func (p *parser) decl() *Value {
	key, v, _ := p.described()
	p.define(key, v)
	return v
}

// described reads a value's name, type and notes; typed is whether it has a
// type.
func (p *parser) described() (key string, v *Value, typed bool) {
	key, name := p.key()
	v = &Value{Name: name}
	if typed = p.accept(":"); typed {
		v.Type = p.typ()
	}
	v.Doc, v.Meta, v.Extra = p.notes()
	return key, v, typed
}

func (p *parser) define(key string, v *Value) {
	if p.find(key) != nil {
		p.fail("value %q is defined twice", strings.TrimPrefix(key, `"`))
	}
	p.scopes[len(p.scopes)-1][key] = v
}

func (p *parser) notes() (doc string, meta []KV, extra []byte) {
	if !p.accept("(") {
		return
	}
	for {
		switch {
		case p.acceptWord("doc"):
			doc = p.str()
		case p.acceptWord("meta"):
			meta = append(meta, p.meta())
		case p.acceptWord("extra"):
			extra = p.hexBytes()
		default:
			p.fail("expected doc, meta or extra, found %s", p.found())
		}
		if !p.accept(",") {
			p.expect(")")
			return
		}
	}
}

func (p *parser) meta() KV {
	k := p.str()
	p.expect("=")
	return KV{Key: k, Value: p.str()}
}

func (p *parser) graph() *Graph {
	p.enter()
	g := &Graph{}
	switch {
	case p.acceptWord("core"):
		g.Level = Core
	default:
		p.expectWord("onnx")
	}
	p.expectWord("graph")
	g.Name = p.str()
	p.expect("{")
	p.scopes = append(p.scopes, map[string]*Value{})
	for !p.accept("}") {
		p.statement(g)
	}
	p.scopes = p.scopes[:len(p.scopes)-1]
	p.depth--
	return g
}

func (p *parser) statement(g *Graph) {
	if c := p.peek(); c == '%' || c == '=' || c == '_' {
		g.Nodes = append(g.Nodes, p.node())
		return
	}
	switch w := p.word(); w {
	case "doc":
		g.Doc = p.str()
	case "meta":
		g.Meta = append(g.Meta, p.meta())
	case "extra":
		g.Extra = p.hexBytes()
	case "input":
		g.Inputs = append(g.Inputs, p.decl())
	case "init":
		g.Inits = append(g.Inits, p.init(g))
	case "output":
		g.Outputs = append(g.Outputs, p.use())
	case "info":
		g.Infos = append(g.Infos, p.use())
	case "orphan":
		g.Infos = append(g.Infos, p.decl())
	default:
		p.fail("expected a statement or }, found %s", strconv.Quote(w)+" "+p.found())
	}
}

// init reads a constant; one that is an input gets its default value.
func (p *parser) init(g *Graph) *Value {
	at := p.at
	key, _ := p.key()
	v := p.scopes[len(p.scopes)-1][key]
	isInput := false
	for _, in := range g.Inputs {
		isInput = isInput || in == v && v.Const == nil
	}
	typed := true
	if !isInput {
		p.at = at
		key, v, typed = p.described()
		p.define(key, v)
	}
	p.expect("=")
	if p.acceptWord("none") {
		return v
	}
	p.tensor(func(t *tensor.Tensor) { v.Const = t })
	if !typed {
		v.Type = TensorType(v.Const.DType, v.Const.Shape...)
	}
	return v
}

func (p *parser) node() *Node {
	n := &Node{}
	var keys []string
	for p.peek() != '=' {
		var v *Value
		var key string
		if !p.acceptWord("_") {
			key, v, _ = p.described()
			v.Def = n
		}
		n.Outputs, keys = append(n.Outputs, v), append(keys, key)
		if !p.accept(",") {
			break
		}
	}
	p.expect("=")
	n.Op = p.name()
	p.expect("(")
	p.list(")", func() { n.Inputs = append(n.Inputs, p.use()) })
	if p.accept("{") {
		p.list("}", func() { n.Attrs = append(n.Attrs, Attr{}); p.attr(n, len(n.Attrs)-1) })
	}
	p.nodeNotes(n)
	// The outputs are in sight of later nodes only.
	for i, v := range n.Outputs {
		if v != nil {
			p.define(keys[i], v)
		}
	}
	return n
}

func (p *parser) nodeNotes(n *Node) {
	fields := map[string]*string{"name": &n.Name, "domain": &n.Domain, "overload": &n.Overload, "origin": &n.Origin, "doc": &n.Doc}
	for {
		at := p.at
		w := p.word()
		// A statement's word may follow instead; doc, meta and extra of the graph
		// stand before its nodes.
		switch f := fields[w]; {
		case f != nil:
			*f = p.str()
		case w == "meta":
			n.Meta = append(n.Meta, p.meta())
		case w == "extra":
			n.Extra = p.hexBytes()
		default:
			p.at = at
			return
		}
	}
}

// list reads items up to a closing mark.
func (p *parser) list(end string, item func()) {
	if p.accept(end) {
		return
	}
	for {
		item()
		if !p.accept(",") {
			p.expect(end)
			return
		}
	}
}

func (p *parser) attr(n *Node, i int) {
	name := p.name()
	p.expect("=")
	p.value(func(v any) { n.Attrs[i].Val = v })
	doc, _, extra := p.notes()
	a := &n.Attrs[i]
	a.Name, a.Doc, a.Extra = name, doc, extra
}

// value reads an attribute's value. set is called once, or again later when a
// blob's bytes are known.
func (p *parser) value(set func(any)) {
	switch c := p.peek(); {
	case c == '"':
		set(p.str())
		return
	case c == '[':
		p.accept("[")
		v := []int64{}
		p.list("]", func() { v = append(v, p.int64()) })
		set(v)
		return
	case c == '-' || c == '+' || isDigit(c):
		set(p.numberValue())
		return
	}
	at := p.at
	w := p.word()
	if p.listValue(w, set) {
		return
	}
	switch w {
	case "onnx", "core":
		p.at = at
		set(p.graph())
	case "type":
		set(p.typ())
	case "ref":
		set(Ref{Name: p.str(), Kind: int32(p.int64())})
	case "raw":
		set(Raw{Bytes: p.hexBytes()})
	case "nan":
		p.at = at
		set(p.float32())
	default:
		p.at = at
		p.tensor(func(t *tensor.Tensor) { set(t) })
	}
}

func (p *parser) listValue(w string, set func(any)) bool {
	switch w {
	case "floats":
		v := []float32{}
		p.expect("[")
		p.list("]", func() { v = append(v, p.float32()) })
		set(v)
	case "strings":
		v := []string{}
		p.expect("[")
		p.list("]", func() { v = append(v, p.str()) })
		set(v)
	case "graphs":
		v := []*Graph{}
		p.expect("[")
		p.list("]", func() { v = append(v, p.graph()) })
		set(v)
	case "types":
		v := []Type{}
		p.expect("[")
		p.list("]", func() { v = append(v, p.typ()) })
		set(v)
	case "tensors":
		v := []*tensor.Tensor{}
		p.expect("[")
		p.list("]", func() {
			i := len(v)
			v = append(v, nil)
			p.tensor(func(t *tensor.Tensor) { v[i] = t; set(v) })
		})
		set(v)
	default:
		return false
	}
	return true
}

func (p *parser) int64() int64 {
	s := p.number()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		p.fail("%q is not an integer", s)
	}
	return n
}

func (p *parser) float32() float32 {
	s := p.number()
	f, ok := parseFloat32(s)
	if !ok {
		p.fail("%q is not a number", s)
	}
	return f
}

func parseFloat32(s string) (float32, bool) {
	if bits, ok := strings.CutPrefix(s, "nan:"); ok {
		n, err := strconv.ParseUint(bits, 16, 32)
		f := math.Float32frombits(uint32(n))
		return f, err == nil && f != f
	}
	f, err := strconv.ParseFloat(s, 32)
	return float32(f), err == nil && f == f
}

func (p *parser) numberValue() any {
	s := p.number()
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	f, ok := parseFloat32(s)
	if !ok {
		p.fail("%q is not a number", s)
	}
	return f
}

func (p *parser) dtype() tensor.DType {
	w := p.word()
	if w == tensor.Invalid.String() {
		return tensor.Invalid
	}
	d, ok := tensor.ParseDType(w)
	if !ok {
		p.fail("%q is not an element type", w)
	}
	return d
}

// tensor reads a tensor; one whose bytes stand behind the graph is set again
// when they are read.
func (p *parser) tensor(set func(*tensor.Tensor)) {
	d := p.dtype()
	var shape []int
	p.expect("[")
	if !p.accept("]") {
		for {
			shape = append(shape, p.digits())
			if p.here() != 'x' {
				break
			}
			p.at++
		}
		p.expect("]")
	}
	switch p.peek() {
	case '#':
		p.at++
		// The bytes are not known yet: a tensor without them stands for the type.
		n := p.digits()
		u := blobUse{&tensor.Tensor{DType: d, Shape: shape}, set}
		p.blobs[n] = append(p.blobs[n], u)
		set(u.t)
	case 'x':
		set(p.checked(tensor.FromBytes(d, shape, p.hexBytes())))
	default:
		p.expect("{")
		var parts []string
		p.list("}", func() {
			if d == tensor.String {
				parts = append(parts, p.str())
			} else {
				parts = append(parts, p.number())
			}
		})
		set(p.checked(elements(d, shape, parts)))
	}
}

func (p *parser) checked(t *tensor.Tensor, err error) *tensor.Tensor {
	if err != nil {
		p.fail("%v", err)
	}
	return t
}

// blobSection reads the bytes of the large tensors. Uses of one blob with the
// same type and shape were one tensor, and are again.
func (p *parser) blobSection() {
	for p.accept("#") {
		n := p.digits()
		b := p.base64Bytes()
		var last *tensor.Tensor
		for _, u := range p.blobs[n] {
			t := p.checked(tensor.FromBytes(u.t.DType, u.t.Shape, b))
			if last != nil && tensor.Equal(last, t) {
				t = last
			}
			u.set(t)
			last = t
		}
		delete(p.blobs, n)
	}
	if p.peek() != 0 {
		p.fail("unexpected %s behind the graph", p.found())
	}
	for n := range p.blobs {
		p.fail("the bytes of #%d are missing", n)
	}
}

// elements makes a tensor of the texts of its elements.
func elements(d tensor.DType, shape []int, parts []string) (*tensor.Tensor, error) {
	n, err := tensor.Count(shape)
	if err != nil {
		return nil, err
	}
	if n != len(parts) {
		return nil, fmt.Errorf("%d elements for shape %s", len(parts), tensor.ShapeString(shape))
	}
	if d == tensor.String {
		return tensor.FromStrings(shape, parts)
	}
	if !d.Valid() || d.Kind() == tensor.KindComplex {
		return nil, fmt.Errorf("elements of type %s stand as bytes", d)
	}
	t := tensor.New(d, shape...)
	for i, s := range parts {
		if err := setElement(t, i, s); err != nil {
			return nil, fmt.Errorf("%q is not a value of %s", s, d)
		}
	}
	return t, nil
}

func setElement(t *tensor.Tensor, i int, s string) error {
	switch t.DType.Kind() {
	case tensor.KindFloat:
		f, err := strconv.ParseFloat(s, floatBits(t.DType))
		t.SetFloat(i, f)
		return err
	case tensor.KindUint:
		u, err := strconv.ParseUint(s, 10, t.DType.Bits())
		t.SetInt(i, int64(u))
		return err
	case tensor.KindBool:
		if s != "0" && s != "1" {
			return strconv.ErrSyntax
		}
	}
	n, err := strconv.ParseInt(s, 10, max(t.DType.Bits(), 2))
	t.SetInt(i, n)
	return err
}
