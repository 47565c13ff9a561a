package ir

import "strings"

// typ reads a type as typeText writes it.
func (p *parser) typ() Type {
	p.enter()
	t := Type{}
	elem := func() {
		if p.peek() != ')' {
			e := p.typ()
			t.Elem = &e
		}
		p.expect(")")
	}
	at := p.at
	switch p.word() {
	case "none":
	case "seq":
		t.Form = FormSequence
		p.expect("(")
		elem()
	case "optional":
		t.Form = FormOptional
		p.expect("(")
		elem()
	case "map":
		t.Form = FormMap
		p.expect("(")
		t.Key = p.dtype()
		p.expect(",")
		elem()
	case "opaque":
		t.Form = FormOpaque
		p.expect("(")
		t.Opaque[0] = p.str()
		p.expect(",")
		t.Opaque[1] = p.str()
		p.expect(")")
	case "sparse":
		t.Form = FormSparse
		t.DType = p.dtype()
		p.shape(&t)
	default:
		p.at = at
		t.Form = FormTensor
		t.DType = p.dtype()
		p.shape(&t)
	}
	if p.accept("@") {
		t.Denotation = p.str()
	}
	p.depth--
	return t
}

func (p *parser) shape(t *Type) {
	p.expect("[")
	if p.accept("...") {
		p.expect("]")
		return
	}
	t.HasRank = true
	t.Shape = []Dim{}
	if p.accept("]") {
		return
	}
	for {
		t.Shape = append(t.Shape, p.dim())
		if p.here() != 'x' {
			break
		}
		p.at++
	}
	p.expect("]")
}

func (p *parser) dim() Dim {
	d := Dim{N: -1}
	switch c := p.here(); {
	case c == '?':
		p.at++
	case isDigit(c):
		d.N = p.digits()
		if p.here() == ':' {
			p.at++
			d.Param = p.param()
		}
	default:
		d.Param = p.param()
	}
	if p.here() == '@' {
		p.at++
		d.Denotation = p.str()
	}
	return d
}

// param reads a dimension's name; a bare one ends before the next x.
func (p *parser) param() string {
	if p.here() == '"' {
		return p.str()
	}
	w := p.word()
	if i := strings.IndexByte(w, 'x'); i >= 0 {
		p.at -= len(w) - i
		w = w[:i]
	}
	if w == "" {
		p.fail("expected a dimension, found %s", p.found())
	}
	return w
}
