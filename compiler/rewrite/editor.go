package rewrite

import (
	"fmt"
	"slices"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Editor holds one graph while patches are applied to it, with an index of who
// reads what. Nothing else may change the graph meanwhile.
type Editor struct {
	Graph *ir.Graph
	// Variable are initializers that a caller may override (they stand among
	// the inputs); they are no constants.
	Variable map[*ir.Value]bool

	log     *Log
	label   string // of the graph, in edits
	users   map[*ir.Value][]user
	outs    map[*ir.Value]int // places among the outputs of this graph and of subgraphs
	own     map[*ir.Value]int // places among the outputs of this graph
	live    map[*ir.Node]bool
	names   map[string]bool
	instead map[*ir.Node][]*ir.Node // what stands at a replaced node's place
	gone    map[*ir.Value]bool
}

// user is one place where a node reads a value; the node may be in a subgraph.
type user struct {
	node  *ir.Node
	input int
}

// Open indexes a graph. taken names every value of the whole model, so that
// new names are free in enclosing graphs and subgraphs too; it may be nil.
func Open(g *ir.Graph, log *Log, taken map[string]bool) *Editor {
	e := &Editor{
		Graph: g, log: log, users: map[*ir.Value][]user{}, outs: map[*ir.Value]int{}, own: map[*ir.Value]int{},
		live: map[*ir.Node]bool{}, names: taken, instead: map[*ir.Node][]*ir.Node{}, gone: map[*ir.Value]bool{},
	}
	if e.names == nil {
		e.names = Names(g)
	}
	for _, n := range g.Nodes {
		e.live[n] = true
		e.enter(n)
	}
	for _, o := range g.Outputs {
		e.outs[o]++
		e.own[o]++
	}
	return e
}

// Names collects the names of all values of a graph and its subgraphs.
func Names(g *ir.Graph) map[string]bool {
	m := map[string]bool{}
	var walk func(g *ir.Graph)
	walk = func(g *ir.Graph) {
		for _, list := range [][]*ir.Value{g.Inputs, g.Inits, g.Infos} {
			for _, v := range list {
				m[v.Name] = true
			}
		}
		for _, n := range g.Nodes {
			for _, v := range n.Outputs {
				if v != nil {
					m[v.Name] = true
				}
			}
			for _, s := range n.Subgraphs() {
				walk(s)
			}
		}
	}
	walk(g)
	return m
}

// enter adds a node's reads, those of its subgraphs included.
func (e *Editor) enter(n *ir.Node) {
	for i, v := range n.Inputs {
		if v != nil {
			e.users[v] = append(e.users[v], user{n, i})
		}
	}
	for _, s := range n.Subgraphs() {
		for _, m := range s.Nodes {
			e.enter(m)
		}
		for _, o := range s.Outputs {
			e.outs[o]++
		}
	}
}

// leave removes a node's reads.
func (e *Editor) leave(n *ir.Node) {
	for i, v := range n.Inputs {
		if v != nil {
			e.users[v] = slices.DeleteFunc(e.users[v], func(u user) bool { return u.node == n && u.input == i })
		}
	}
	for _, s := range n.Subgraphs() {
		for _, m := range s.Nodes {
			e.leave(m)
		}
		for _, o := range s.Outputs {
			e.outs[o]--
		}
	}
}

// Readers counts the places that read a value; graph outputs count.
func (e *Editor) Readers(v *ir.Value) int { return len(e.users[v]) + e.outs[v] }

// IsOutput reports an output of the graph.
func (e *Editor) IsOutput(v *ir.Value) bool { return e.own[v] > 0 }

// Producer is the node of this graph that makes a value; nil for inputs,
// constants and values of enclosing graphs.
func (e *Editor) Producer(v *ir.Value) *ir.Node {
	if v == nil || !e.live[v.Def] {
		return nil
	}
	return v.Def
}

// OnlyReader is the node of this graph that alone reads a value; nil if there
// are others, or if the value is an output.
func (e *Editor) OnlyReader(v *ir.Value) *ir.Node {
	if len(e.users[v]) != 1 || e.outs[v] > 0 || !e.live[e.users[v][0].node] {
		return nil
	}
	return e.users[v][0].node
}

// Const is the data of a value that nobody can change; nil if it is computed
// or may be overridden.
func (e *Editor) Const(v *ir.Value) *tensor.Tensor {
	if v == nil || e.Variable[v] {
		return nil
	}
	return v.Const
}

// Fresh gives a free name like base and takes it.
func (e *Editor) Fresh(base string) string {
	name := base
	for i := 1; e.names[name] || name == ""; i++ {
		name = fmt.Sprintf("%s_%d", base, i)
	}
	e.names[name] = true
	return name
}

// NewConst makes a constant with a free name like base.
func (e *Editor) NewConst(base string, t *tensor.Tensor) *ir.Value {
	return ir.NewConst(e.Fresh(base), t)
}

// NewValue makes a value with a free name like base, for a new node's output.
func (e *Editor) NewValue(base string, t ir.Type) *ir.Value {
	return &ir.Value{Name: e.Fresh(base), Type: t}
}

// CanSwap reports whether the readers of old may read new: an output of the
// graph keeps its name, so the new value must be able to take it.
func (e *Editor) CanSwap(old, new *ir.Value) bool {
	if !e.IsOutput(old) {
		return true
	}
	return e.Producer(new) != nil && !e.IsOutput(new)
}

// Apply applies a patch, or reports false and changes nothing if the log is
// full or an output cannot take its new value. A patch that is unsound is a
// bug of its rule and panics.
func (e *Editor) Apply(rule string, p *Patch) bool {
	if e.log.Full() {
		return false
	}
	for _, s := range p.Same {
		if !e.CanSwap(s.Old, s.New) {
			return false
		}
	}
	e.check(rule, p)
	ed := Edit{Pass: e.log.Pass, Rule: rule, Node: p.At.Label(), Op: p.At.FullOp(), Graph: e.label, Why: p.Why}
	// The reads of the node that goes are dropped first: a patch may move nodes
	// out of its subgraphs.
	e.leave(p.At)
	e.Graph.Inits = append(e.Graph.Inits, p.Inits...)
	for _, n := range p.Nodes {
		e.live[n] = true
		e.enter(n)
		for _, o := range n.Outputs {
			if o != nil {
				o.Def = n
			}
		}
		ed.Added = append(ed.Added, describe(n))
	}
	e.instead[p.At] = p.Nodes
	for _, s := range p.Same {
		e.swap(s)
	}
	e.bury(p.At, &ed)
	e.log.Edits = append(e.log.Edits, ed)
	return true
}

// check holds that each output of the node that goes is accounted for.
func (e *Editor) check(rule string, p *Patch) {
	if !e.live[p.At] {
		panic(fmt.Sprintf("BUG: rule %s patches node %q, which is gone", rule, p.At.Label()))
	}
	settled := map[*ir.Value]bool{}
	for _, n := range p.Nodes {
		if e.live[n] {
			panic(fmt.Sprintf("BUG: rule %s inserts node %q, which is there", rule, n.Label()))
		}
		for _, o := range n.Outputs {
			if o != nil && e.live[o.Def] && o.Def != p.At {
				panic(fmt.Sprintf("BUG: rule %s defines %q twice", rule, o.Name))
			}
			settled[o] = true
		}
	}
	for _, s := range p.Same {
		settled[s.Old] = true
	}
	for _, v := range p.Inits {
		settled[v] = true
	}
	for _, o := range p.At.Outputs {
		if o != nil && !settled[o] && e.Readers(o) > 0 {
			panic(fmt.Sprintf("BUG: rule %s leaves %q, which is read, without a producer", rule, o.Name))
		}
	}
}

// swap moves the readers of Old to New; where Old is an output of the graph it
// keeps its identity and takes over New's producer and readers instead.
func (e *Editor) swap(s Swap) {
	from, to := s.Old, s.New
	if e.IsOutput(from) {
		def := to.Def
		def.Outputs[slices.Index(def.Outputs, to)] = from
		from.Def = def
		from, to = to, from
	}
	for _, u := range e.users[from] {
		u.node.Inputs[u.input] = to
		e.users[to] = append(e.users[to], u)
	}
	delete(e.users, from)
	if e.outs[from] > 0 {
		_ = e.Graph.Walk(func(_ *ir.Graph, n *ir.Node) error {
			for _, g := range n.Subgraphs() {
				for i, o := range g.Outputs {
					if o == from {
						g.Outputs[i] = to
						e.outs[from]--
						e.outs[to]++
					}
				}
			}
			return nil
		})
	}
	e.gone[from] = true
}

// drop removes a node and what only it needed.
func (e *Editor) drop(n *ir.Node, ed *Edit) {
	e.leave(n)
	e.bury(n, ed)
}

// bury forgets a node that reads nothing any more, and drops those that only it
// read.
func (e *Editor) bury(n *ir.Node, ed *Edit) {
	delete(e.live, n)
	ed.Removed = append(ed.Removed, describe(n))
	for _, o := range n.Outputs {
		if o != nil && o.Def == n {
			e.gone[o] = true
		}
	}
	for _, v := range captured(n) {
		if d := e.Producer(v); d != nil && e.unread(d) {
			e.drop(d, ed)
		}
	}
}

// captured lists what a node and its subgraphs read.
func captured(n *ir.Node) []*ir.Value {
	var vs []*ir.Value
	for _, v := range n.Inputs {
		if v != nil {
			vs = append(vs, v)
		}
	}
	for _, s := range n.Subgraphs() {
		vs = append(vs, s.Outputs...)
		for _, m := range s.Nodes {
			vs = append(vs, captured(m)...)
		}
	}
	return vs
}

func (e *Editor) unread(n *ir.Node) bool {
	for _, o := range n.Outputs {
		if o != nil && e.Readers(o) > 0 {
			return false
		}
	}
	return true
}

// Live reports a node that is in the graph.
func (e *Editor) Live(n *ir.Node) bool { return e.live[n] }
