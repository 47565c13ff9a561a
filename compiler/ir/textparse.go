package ir

import (
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
