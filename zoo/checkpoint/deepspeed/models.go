package deepspeed

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// models reads the model-states files: topology, shapes, spec, what is carried.
func (r *reader) models() error {
	files, zero3 := r.files.model, false
	if len(files) == 0 {
		files, zero3 = r.files.model3, true
	}
	if len(files) == 0 {
		return bad(r.c.Folder, "folder has no model-states files")
	}
	mps := map[int]bool{}
	var roots []atom.ModelState
	for _, f := range files {
		first := !mps[f.a]
		mps[f.a] = true
		m := atom.ModelState{File: f.name, DP: f.b}
		if first {
			d, err := r.openDict(f.name)
			if err != nil {
				return err
			}
			m.Root = d
		}
		m.TP = f.a // the model-parallel rank, until the topology is known
		roots = append(roots, m)
	}
	r.c.Models = roots
	return r.topology(len(mps), zero3)
}

// topology finds the degrees. What the files say of themselves comes first,
// then the numbers of files.
func (r *reader) topology(mps int, zero3 bool) error {
	t, first := &r.c.Topology, r.firstModel()
	t.BF16 = r.files.bf16
	t.Pipe = len(r.files.layer) > 0
	r.c.Version = text(first, "ds_version")
	r.c.Config = sub(first, "ds_config")
	if err := r.degrees(mps, zero3); err != nil {
		return err
	}
	for i := range r.c.Models {
		m := &r.c.Models[i]
		m.PP, m.TP = m.TP/t.TP, m.TP%t.TP
	}
	if err := r.readSpec(first); err != nil {
		return err
	}
	for mp := range t.TP * t.PP {
		rk := &rank{mp: mp, pp: mp / t.TP, tp: mp % t.TP, params: map[string]*local{}}
		r.ranks = append(r.ranks, rk)
		for _, m := range r.c.Models {
			if m.PP == rk.pp && m.TP == rk.tp && m.Root != nil {
				if err := r.readModel(rk, m); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *reader) firstModel() *torch.Dict {
	for _, m := range r.c.Models {
		if m.Root != nil {
			return m.Root
		}
	}
	return torch.NewDict()
}

// maxRanks is more ranks than any machine has, and few enough to list.
const maxRanks = 1 << 17

func (r *reader) degrees(mps int, zero3 bool) error {
	t, first := &r.c.Topology, r.firstModel()
	highest := 0
	for _, m := range r.c.Models {
		highest = max(highest, m.TP)
	}
	for _, key := range []string{"mp_world_size", "dp_world_size"} {
		if n, ok := number(first, key); ok && n > maxRanks {
			return bad(r.c.Folder, "%s is %d, which is no number of ranks", key, n)
		}
	}
	mpWorld := mps
	if n, ok := number(first, "mp_world_size"); ok && n > 0 {
		mpWorld = int(n)
	}
	if mpWorld < highest+1 {
		mpWorld = highest + 1
	}
	if mps < mpWorld && !r.opt.Partial {
		return bad(r.c.Folder, "%d of %d model-parallel ranks have no model-states file", mpWorld-mps, mpWorld)
	} else if mps < mpWorld {
		r.c.Warnf("%d of %d model-parallel ranks have no model-states file", mpWorld-mps, mpWorld)
	}
	t.PP = 1
	if d := sub(first, "checkpoint_parallel_dimensions"); d != nil {
		pp, _ := number(d, "pp_degree")
		if t.PP = max(int(pp), 1); pp > maxRanks {
			return bad(r.c.Folder, "pp_degree is %d, which is no number of stages", pp)
		}
	} else if t.Pipe {
		tp := 0
		for _, f := range r.files.layer {
			tp = max(tp, f.b+1)
		}
		if mpWorld%tp != 0 {
			return bad(r.c.Folder, "%d model-parallel ranks are not a multiple of the %d tensor-parallel ranks that the layer files show", mpWorld, tp)
		}
		t.PP = mpWorld / tp
	}
	if mpWorld > maxRanks {
		return bad(r.c.Folder, "a file name has model-parallel rank %d", mpWorld-1)
	}
	if mpWorld%t.PP != 0 {
		return bad(r.c.Folder, "%d model-parallel ranks are not a multiple of %d pipeline stages", mpWorld, t.PP)
	}
	t.TP = mpWorld / t.PP
	t.DP = 1
	for _, f := range append(slices.Clone(r.files.optim), r.files.model3...) {
		t.DP = max(t.DP, f.b+1)
	}
	if t.DP > maxRanks {
		return bad(r.c.Folder, "a file name has data-parallel rank %d", t.DP-1)
	}
	// Third-party scripts write 0 here.
	if n, ok := number(first, "dp_world_size"); ok && int(n) > t.DP {
		if len(r.files.optim) > 0 || zero3 {
			t.DP = int(n)
		}
	}
	return nil
}

// readSpec takes the rules of the checkpoint or those that were given.
func (r *reader) readSpec(first *torch.Dict) error {
	v, _ := first.Get("universal_checkpoint_info")
	d, _ := v.(*torch.Dict)
	s, err := spec.FromInfo(d)
	if err != nil {
		return fault.New(fault.Unsupported, "universal_checkpoint_info: %w", err).InFile(r.c.Folder).
			Hint("give the layout with --spec; inspect prints one to begin with")
	}
	if given := r.opt.Spec; given != nil {
		given.Info = s.Info
		if given.OriginalVocab == 0 {
			given.OriginalVocab, given.PaddedVocab = s.OriginalVocab, s.PaddedVocab
		}
		if given.VocabDivisor == 0 {
			given.VocabDivisor = s.VocabDivisor
		}
		if given.Version == 0 {
			given.Version = s.Version
		}
		s = given
	}
	if s.VocabDivisor == 0 {
		s.VocabDivisor = megatronDivisor(first)
	}
	r.c.Spec = s
	return nil
}

// megatronDivisor is make_vocab_size_divisible_by of Megatron's own arguments.
func megatronDivisor(first *torch.Dict) int64 {
	v, _ := first.Get("args")
	o, ok := v.(*torch.Object)
	if !ok {
		return 0
	}
	a, _ := o.Attr("make_vocab_size_divisible_by")
	n, _ := integer(a)
	return n
}

// readModel takes shapes and names from a rank's first model-states file.
func (r *reader) readModel(rk *rank, m atom.ModelState) error {
	for _, v := range items(m.Root, "param_shapes") {
		names, sh, err := shapes(v)
		if err != nil {
			return bad(r.file(m.File), "%w", err)
		}
		rk.groups = append(rk.groups, group{names: names, shapes: sh, param: len(rk.groups)})
	}
	if d := sub(m.Root, "param_shapes"); d != nil { // one dict instead of a list
		names, sh, err := shapes(d)
		if err != nil {
			return bad(r.file(m.File), "%w", err)
		}
		rk.groups = append(rk.groups, group{names: names, shapes: sh})
	}
	for _, b := range items(m.Root, "buffer_names") {
		r.buffer[fmt.Sprint(b)] = true
	}
	if d := sub(m.Root, "frozen_param_shapes"); d != nil {
		for _, p := range d.Pairs() {
			r.frozen[fmt.Sprint(p.Key)] = true
		}
	}
	v, _ := m.Root.Get("shared_params")
	if d, ok := v.(*torch.Dict); ok {
		for _, p := range d.Pairs() {
			r.shared[fmt.Sprint(p.Key)] = fmt.Sprint(p.Value)
		}
	} else if l, err := spec.Items(v); err == nil { // a list of pairs before 0.10
		for _, it := range l {
			if pair, err := spec.Items(it); err == nil && len(pair) == 2 {
				r.shared[fmt.Sprint(pair[0])] = fmt.Sprint(pair[1])
			}
		}
	}
	return nil
}

// isExpert reports whether a name belongs to a native-MoE expert.
func isExpert(name string) bool { return strings.Contains(name, expertPart) }
