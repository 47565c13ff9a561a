package deepspeed

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
)

// merge joins the shards of all ranks into logical parameters.
func (r *reader) merge() error {
	var names []string
	seen := map[string]bool{}
	for _, rk := range r.ranks {
		for _, n := range rk.order {
			if !seen[n] {
				seen[n] = true
				names = append(names, n)
			}
		}
	}
	if r.c.Topology.TP > 1 && !r.c.Spec.Stated {
		if r.c.Spec.Info == nil && r.opt.Spec == nil && !r.opt.Partial {
			return fault.New(fault.Unsupported, "the checkpoint has %d tensor-parallel ranks and does not say how parameters are cut", r.c.Topology.TP).
				InFile(r.c.Folder).Hint("lathe checkpoint inspect --spec-out spec.yaml proposes rules; check them and give them with --spec")
		}
	}
	for _, n := range names {
		p, err := r.mergeParam(n)
		if err != nil {
			if r.opt.Partial {
				r.c.Warnf("parameter %s: %v", n, err)
				continue
			}
			return bad(r.c.Folder, "parameter %s: %w", n, err)
		}
		r.c.Params = append(r.c.Params, p)
	}
	if u := r.c.Spec.Unused(names); len(u) > 0 {
		r.c.Warnf("patterns that match no parameter: %s", strings.Join(u, ", "))
	}
	return nil
}

// mergeParam joins one parameter over stages and tensor-parallel ranks.
func (r *reader) mergeParam(name string) (*atom.Param, error) {
	m, err := r.c.Spec.Match(name)
	if err != nil {
		return nil, err
	}
	var stages [][]*local
	p := &atom.Param{Name: name, Group: -1}
	for pp := range r.c.Topology.PP {
		row, err := r.stage(pp, name)
		if err != nil {
			return nil, err
		}
		if row == nil {
			continue
		}
		stages = append(stages, row)
		p.Stages = append(p.Stages, pp)
		for _, l := range row {
			for _, pl := range l.places {
				if !slices.Contains(p.Places, pl) {
					p.Places = append(p.Places, pl)
				}
			}
		}
	}
	first := stages[0]
	p.Group = first[0].group
	p.Step = first[0].step
	p.Aliases = slices.Compact(slices.Sorted(slices.Values(first[0].aliases)))
	p.Kind = r.kind(first[0])
	m.Expert = m.Expert || first[0].expert
	if m.Pattern == "" {
		same := p.Kind == atom.Buffer
		if p.Kind == atom.Frozen && len(first) > 1 { // the language is about trained parameters
			if same, err = r.beginEqual(first); err != nil {
				return nil, err
			}
		}
		if same {
			m.Kind = spec.Replicated
		}
	}
	if len(stages) > 1 && !m.PipelineReplicated && !strings.HasPrefix(name, "tied_modules.") {
		r.c.Warnf("%s is held by pipeline stages %v without being declared pipeline-replicated; it is taken from the first, the others must be equal", name, p.Stages)
	}
	p.Rule = m
	for i, row := range stages {
		// The language says that the first stage counts. Others may have
		// drifted: a tied module shares only some of its parameters.
		if i > 0 && (m.PipelineReplicated || strings.HasPrefix(name, "tied_modules.")) {
			break
		}
		if err := r.mergeStates(p, m, row, i > 0); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// beginEqual reports whether the shards of all ranks begin with equal bytes. If
// they are taken for replicas, the whole of them is compared when they are
// converted.
func (r *reader) beginEqual(row []*local) (bool, error) {
	rd := engine.NewReader(r.c)
	defer rd.Close()
	var first []byte
	for i, l := range row {
		if len(l.states) == 0 || !slices.Equal(l.shape, row[0].shape) {
			return false, nil
		}
		s := l.states[0].piece
		t := &atom.Tensor{DType: s.dtype, Shape: l.shape, Pieces: []atom.Piece{{View: geometry.Whole(l.shape), Frags: s.frags, Stride: s.stride}}}
		b := make([]byte, min(t.Bytes(), 1<<16))
		n, err := rd.Open(t).Next(b)
		if err != nil {
			return false, err
		}
		if b = b[:n]; i == 0 {
			first = b
		} else if !bytes.Equal(first, b) {
			return false, nil
		}
	}
	return true, nil
}

// stage collects a parameter's shards of one pipeline stage.
func (r *reader) stage(pp int, name string) ([]*local, error) {
	var row []*local
	missing := -1
	for _, rk := range r.ranks {
		if rk.pp != pp {
			continue
		}
		if l := rk.params[name]; l != nil {
			row = append(row, l)
		} else {
			missing = rk.tp
		}
	}
	if len(row) > 0 && missing >= 0 {
		return nil, fmt.Errorf("tensor-parallel rank %d does not hold it, others do", missing)
	}
	return row, nil
}

func (r *reader) kind(l *local) atom.Kind {
	switch {
	case l.group >= 0:
		return atom.Trained
	case r.frozen[l.name]:
		return atom.Frozen
	case r.buffer[l.name]:
		return atom.Buffer
	case len(r.buffer) > 0 && r.firstModelHas("buffer_names"):
		return atom.Frozen
	}
	return atom.Buffer
}

func (r *reader) firstModelHas(key string) bool {
	_, ok := r.firstModel().Get(key)
	return ok
}

// mergeStates joins the shards of one stage; those of later stages are copies.
func (r *reader) mergeStates(p *atom.Param, m spec.Match, row []*local, copies bool) error {
	locals := make([][]int64, len(row))
	for i, l := range row {
		locals[i] = l.shape
	}
	shape, views, err := m.Merge(locals, r.c.Spec.OriginalVocab)
	if err != nil {
		return err
	}
	if copies && !slices.Equal(shape, p.Shape) {
		return fmt.Errorf("pipeline stages hold it with shapes %v and %v", p.Shape, shape)
	}
	p.Shape = shape
	// A buffer that every rank has may differ between ranks without harm.
	free := p.Kind == atom.Buffer && m.Kind == spec.Replicated
	for i, l := range row {
		if (copies || i > 0) && free {
			continue
		}
		for _, s := range l.states {
			piece := atom.Piece{View: views[i], Frags: s.piece.frags, Stride: s.piece.stride}
			t := p.State(s.name)
			if t == nil {
				if copies || i > 0 {
					return fmt.Errorf("%s is missing on rank 0", s.name)
				}
				t = &atom.Tensor{DType: s.piece.dtype, Shape: shape, Average: m.Kind == spec.Average}
				p.SetState(s.name, t)
			}
			if t.DType != s.piece.dtype {
				return fmt.Errorf("%s has element types %s and %s", s.name, t.DType, s.piece.dtype)
			}
			if copies && m.Kind == spec.Average {
				continue // the mean is taken over the ranks of the first stage
			}
			if copies || i > 0 && (m.Kind == spec.Replicated || m.Kind == spec.Average) {
				t.Copies = append(t.Copies, piece)
			} else {
				t.AddPiece(piece)
			}
		}
	}
	for _, s := range p.States {
		for _, set := range [][]atom.Piece{s.Pieces, s.Copies} {
			for _, pc := range set {
				slices.SortFunc(pc.Frags, func(a, b atom.Frag) int { return int(min(max(a.Start-b.Start, -1), 1)) })
			}
		}
	}
	return nil
}
