package deepspeed

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/torchfile"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// experts is the native MoE of a target.
type experts struct {
	ep       int
	groups   map[int]bool   // optimizer groups of experts
	prefixes []string       // the expert lists of the MoE layers, in order
	count    map[string]int // experts per layer
}

// has reports whether a parameter is an expert's.
func (e *experts) has(p *cut) bool { return e != nil && p.Rule.Expert && isExpert(p.Name) }

func expertOf(name string) (prefix string, id int, rest string) {
	m := reExpertName.FindStringSubmatch(name)
	if m == nil {
		return "", 0, ""
	}
	id, _ = strconv.Atoi(m[2])
	return m[1], id, m[3]
}

// findExperts prepares the expert-parallel layout.
func (t *target) findExperts() error {
	e := &experts{groups: map[int]bool{}, count: map[string]int{}}
	for _, p := range t.params {
		prefix, id, _ := expertOf(p.Name)
		if prefix == "" || !e.has(p) {
			continue
		}
		if _, ok := e.count[prefix]; !ok {
			e.prefixes = append(e.prefixes, prefix)
		}
		e.count[prefix] = max(e.count[prefix], id+1)
		if p.Kind == atom.Trained {
			e.groups[p.Group] = true
		}
	}
	if len(e.prefixes) == 0 {
		return nil
	}
	if t.l.Zero == 3 {
		return unsupported("DeepSpeed's own mixture of experts does not run with ZeRO-3").Hint("use zero=1 or zero=2")
	}
	e.ep = t.l.EP
	if e.ep == 0 {
		e.ep = max(t.c.Topology.EP, 1)
		if t.c.Topology.EP == 0 {
			e.ep = t.recordedEP(e)
		}
		for e.ep > 1 && t.l.DP%e.ep != 0 {
			e.ep /= 2
		}
	}
	if t.l.DP%e.ep != 0 {
		return unsupported("%d expert-parallel ranks do not divide %d data-parallel ranks", e.ep, t.l.DP)
	}
	for prefix, n := range e.count {
		if n > maxRanks {
			return unsupported("%s has expert %d", prefix, n-1)
		}
		if n%e.ep != 0 {
			return unsupported("%d experts of %s cannot be shared evenly by %d expert-parallel ranks", n, prefix, e.ep)
		}
	}
	t.moe = e
	for g := range e.groups {
		if slices.ContainsFunc(t.params, func(p *cut) bool { return p.Kind == atom.Trained && p.Group == g && !e.has(p) }) {
			return unsupported("optimizer group %d mixes experts with other parameters", g)
		}
	}
	t.sortExperts()
	return nil
}

// recordedEP reads the expert-parallel size from the name of the group.
func (t *target) recordedEP(e *experts) int {
	for g := range e.groups {
		if g < len(t.c.Groups) {
			var n int
			if _, err := fmt.Sscanf(text(t.c.Groups[g], "name"), "ep_size_%d", &n); err == nil && n > 0 {
				return n
			}
		}
	}
	return 1
}

// sortExperts puts experts into the order of the model: layer by layer, expert
// by expert, whatever ranks they came from.
func (t *target) sortExperts() {
	order := map[string]int{}
	key := func(p *cut) (int, int) {
		prefix, id, rest := expertOf(p.Name)
		if _, ok := order[rest]; !ok {
			order[rest] = len(order)
		}
		return slices.Index(t.moe.prefixes, prefix)<<20 + id, order[rest]
	}
	var places []int
	var list []*cut
	for i, p := range t.params {
		if t.moe.has(p) {
			places, list = append(places, i), append(list, p)
			key(p)
		}
	}
	slices.SortStableFunc(list, func(a, b *cut) int {
		a1, a2 := key(a)
		b1, b2 := key(b)
		if a1 != b1 {
			return a1 - b1
		}
		return a2 - b2
	})
	for i, at := range places {
		t.params[at] = list[i]
	}
}

// local are the experts that expert-parallel rank r holds.
func (e *experts) local(ps []*cut, r int) []*cut {
	var out []*cut
	for _, p := range ps {
		prefix, id, _ := expertOf(p.Name)
		if id/(e.count[prefix]/e.ep) == r {
			out = append(out, p)
		}
	}
	return out
}

// localName numbers an expert within its rank.
func (e *experts) localName(p *cut) string {
	prefix, id, rest := expertOf(p.Name)
	return prefix + strconv.Itoa(id%(e.count[prefix]/e.ep)) + rest
}

func (e *experts) groupName() string { return fmt.Sprintf("ep_size_%d", e.ep) }

// expertFiles plans the weights of the experts and the empty files that ZeRO
// leaves beside them.
func (r *rankPlan) expertFiles(mp int) {
	if r.moe == nil {
		return
	}
	for layer, prefix := range r.moe.prefixes {
		for id := range r.moe.count[prefix] {
			own := prefix + strconv.Itoa(id) + "."
			var ps []*cut
			bytes := int64(0)
			for _, p := range r.params {
				if len(p.Name) > len(own) && p.Name[:len(own)] == own {
					ps = append(ps, p)
					_, d := r.weight(p)
					bytes += p.numel(r.tp) * int64(d.Size())
				}
			}
			r.add(expertName(layer, id, mp), bytes, func(f torchfile.Fills) (torch.Value, error) {
				d := torch.NewDict()
				for _, p := range ps {
					t, dt := r.weight(p)
					d.Set(p.Name, r.whole(f, p, t, dt))
				}
				return d, nil
			})
		}
	}
	for e := range r.moe.ep {
		r.add(exppName(e, mp), 0, func(torchfile.Fills) (torch.Value, error) { return torch.NewDict("optimizer", nil), nil })
	}
}
