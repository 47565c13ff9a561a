package spec

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"

	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// The keys of universal_checkpoint_info (deepspeed/checkpoint/constants.py).
const (
	keyVersion     = "universal_checkpoint_version"
	keyOrigVocab   = "original_vocab_size"
	keyPadVocab    = "padded_vocab_size"
	keyVocab       = "vocabulary_parameter_patterns"
	keyPipeline    = "pipeline_replicated_parameter_patterns"
	keyReplicated  = "tp_replicated_parameter_patterns"
	keyAverage     = "parameter_to_average_patterns"
	keyRow         = "parameter_with_row_parallelism_patterns"
	keyTwo         = "parameter_with_2_sub_params_cat_dim_0"
	keySub         = "parameter_with_sub_params"
	keyWidths      = "sub_param_shard_widths"
	keyUnsupported = "autotp_unsupported_parameter_patterns"
	keyExpert      = "expert_parameter_patterns"
)

// FromInfo reads universal_checkpoint_info. nil gives a spec without rules.
func FromInfo(d *torch.Dict) (*Spec, error) {
	s := &Spec{Info: d}
	if d == nil {
		return s, nil
	}
	if v, ok := d.Get(keyVersion); ok {
		s.Version, _ = number(v)
	}
	s.OriginalVocab = integer(d, keyOrigVocab)
	s.PaddedVocab = integer(d, keyPadVocab)
	s.Stated = true
	lists := []struct {
		key  string
		rule Rule
	}{
		{keyReplicated, Rule{Kind: Replicated}},
		{keyAverage, Rule{Kind: Average}},
		{keyTwo, Rule{Kind: Fragment, Count: 2}},
	}
	for _, l := range lists {
		if err := s.addList(d, l.key, l.rule); err != nil {
			return nil, err
		}
	}
	if err := s.addSubs(d); err != nil {
		return nil, err
	}
	for _, l := range []struct {
		key  string
		rule Rule
	}{
		{keyRow, Rule{Kind: Fragment, Dim: 1}},
		{keyVocab, Rule{Vocabulary: true}},
		{keyPipeline, Rule{PipelineReplicated: true}},
		{keyExpert, Rule{Expert: true}},
	} {
		if err := s.addList(d, l.key, l.rule); err != nil {
			return nil, err
		}
	}
	if v, ok := d.Get(keyUnsupported); ok {
		bad, isDict := v.(*torch.Dict)
		if !isDict {
			return nil, fmt.Errorf("%s is not a dict", keyUnsupported)
		}
		for _, p := range bad.Pairs() {
			s.Rules = append(s.Rules, Rule{Patterns: []string{fmt.Sprint(p.Key)}, Reason: fmt.Sprint(p.Value)})
		}
	}
	return s, s.Compile()
}

func (s *Spec) addList(d *torch.Dict, key string, r Rule) error {
	v, ok := d.Get(key)
	if !ok || v == nil {
		return nil
	}
	var err error
	if r.Patterns, err = texts(v); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if len(r.Patterns) > 0 {
		s.Rules = append(s.Rules, r)
	}
	return nil
}

func (s *Spec) addSubs(d *torch.Dict) error {
	v, ok := d.Get(keySub)
	if !ok || v == nil {
		return nil
	}
	items, err := Items(v)
	if err != nil {
		return fmt.Errorf("%s: %w", keySub, err)
	}
	widths, _ := d.Get(keyWidths)
	wd, _ := widths.(*torch.Dict)
	for _, it := range items {
		sub, err := ParseSubShape(it)
		if err != nil {
			return fmt.Errorf("%s: %w", keySub, err)
		}
		// Widths belong to a pattern, so each pattern becomes a rule.
		for _, p := range sub.Patterns {
			r := Rule{Patterns: []string{p}, Kind: Fragment, Dim: sub.Dim, Sub: sub}
			if w, ok := wd.Get(p); ok {
				if r.Widths, err = table(w); err != nil {
					return fmt.Errorf("%s of %q: %w", keyWidths, p, err)
				}
			}
			s.Rules = append(s.Rules, r)
		}
	}
	return nil
}

// ParseSubShape reads a SubparamShape, given as the object or as its fields.
func ParseSubShape(v torch.Value) (*SubShape, error) {
	d, ok := v.(*torch.Dict)
	if o, isObj := v.(*torch.Object); isObj {
		d, ok = o.State.(*torch.Dict)
	}
	if !ok {
		return nil, fmt.Errorf("%T is not a SubparamShape", v)
	}
	sub := &SubShape{}
	var err error
	if p, has := d.Get("patterns"); has {
		if sub.Patterns, err = texts(p); err != nil {
			return nil, err
		}
	}
	sub.Dim = int(integer(d, "partition_dim"))
	shape, _ := d.Get("shape")
	items, err := Items(shape)
	if err != nil {
		return nil, fmt.Errorf("shape: %w", err)
	}
	for _, it := range items {
		if n, ok := number(it); ok {
			sub.Shape = append(sub.Shape, Entry{Sizes: []int64{int64(n)}})
			continue
		}
		sizes, err := Integers(it)
		if err != nil {
			return nil, fmt.Errorf("shape: %w", err)
		}
		sub.Shape = append(sub.Shape, Entry{Tuple: true, Sizes: sizes})
	}
	if sub.Dim < 0 || sub.Dim >= len(sub.Shape) {
		return nil, fmt.Errorf("partition_dim %d is outside a shape of %d dimensions", sub.Dim, len(sub.Shape))
	}
	return sub, nil
}

// Value is the SubparamShape as DeepSpeed pickles it.
func (s *SubShape) Value() *torch.Object {
	return torch.NewObject("deepspeed.checkpoint.universal_checkpoint", "SubparamShape", s.dict())
}

func (s *SubShape) dict() *torch.Dict {
	shape := torch.NewTuple()
	for _, e := range s.Shape {
		if !e.Tuple {
			shape.Items = append(shape.Items, e.Sizes[0])
			continue
		}
		t := torch.NewTuple()
		for _, n := range e.Sizes {
			t.Items = append(t.Items, n)
		}
		shape.Items = append(shape.Items, t)
	}
	return torch.NewDict("patterns", list(s.Patterns), "shape", shape, "partition_dim", int64(s.Dim))
}

func list(texts []string) *torch.List {
	l := torch.NewList()
	for _, t := range texts {
		l.Items = append(l.Items, t)
	}
	return l
}

// ToInfo writes the rules as universal_checkpoint_info. Keys that the spec does
// not model are carried from the source's info.
func (s *Spec) ToInfo() *torch.Dict {
	d := torch.NewDict()
	if s.Info != nil {
		d = s.Info.Copy()
	}
	if _, ok := d.Get(keyVersion); !ok {
		v := s.Version
		if v == 0 {
			v = 0.2
		}
		d.Set(keyVersion, v)
	}
	if s.OriginalVocab > 0 {
		d.Set(keyOrigVocab, s.OriginalVocab)
		d.Set(keyPadVocab, max(s.PaddedVocab, s.OriginalVocab))
	}
	set := func(key string, keep func(*Rule) bool) {
		var all []string
		for i := range s.Rules {
			if keep(&s.Rules[i]) {
				all = append(all, s.Rules[i].Patterns...)
			}
		}
		if len(all) > 0 {
			d.Set(key, list(all))
		} else {
			d.Delete(key)
		}
	}
	plain := func(r *Rule) bool { return r.Kind == Fragment && r.Sub == nil && r.Count <= 1 }
	set(keyVocab, func(r *Rule) bool { return r.Vocabulary })
	set(keyPipeline, func(r *Rule) bool { return r.PipelineReplicated })
	set(keyReplicated, func(r *Rule) bool { return r.Kind == Replicated })
	set(keyAverage, func(r *Rule) bool { return r.Kind == Average })
	set(keyRow, func(r *Rule) bool { return plain(r) && r.Dim == 1 })
	set(keyTwo, func(r *Rule) bool { return r.Kind == Fragment && r.Count == 2 })
	set(keyExpert, func(r *Rule) bool { return r.Expert })
	s.setSubs(d)
	return d
}

func (s *Spec) setSubs(d *torch.Dict) {
	subs := torch.NewList()
	var seen []*SubShape
	for i := range s.Rules {
		if sub := s.Rules[i].Sub; sub != nil && !sub.Open && !slices.Contains(seen, sub) {
			seen = append(seen, sub)
			subs.Items = append(subs.Items, sub.dict())
		}
	}
	if len(subs.Items) > 0 {
		d.Set(keySub, subs)
	} else {
		d.Delete(keySub)
	}
}

// Items gives the members of a list, tuple or torch.Size.
func Items(v torch.Value) ([]torch.Value, error) {
	switch x := v.(type) {
	case *torch.List:
		return x.Items, nil
	case *torch.Tuple:
		return x.Items, nil
	case torch.Size:
		out := make([]torch.Value, len(x))
		for i, n := range x {
			out[i] = int64(n)
		}
		return out, nil
	}
	return nil, fmt.Errorf("%T is not a list", v)
}

// Integers gives a list of integers.
func Integers(v torch.Value) ([]int64, error) {
	items, err := Items(v)
	if err != nil {
		return nil, err
	}
	out := make([]int64, len(items))
	for i, it := range items {
		n, ok := number(it)
		if !ok {
			return nil, fmt.Errorf("%T is not a number", it)
		}
		out[i] = int64(n)
	}
	return out, nil
}

func table(v torch.Value) ([][]int64, error) {
	items, err := Items(v)
	if err != nil {
		return nil, err
	}
	out := make([][]int64, len(items))
	for i, it := range items {
		if out[i], err = Integers(it); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func texts(v torch.Value) ([]string, error) {
	items, err := Items(v)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, it := range items {
		t, ok := it.(string)
		if !ok {
			return nil, fmt.Errorf("%T is not a pattern", it)
		}
		out = append(out, t)
	}
	return out, nil
}

func number(v torch.Value) (float64, bool) {
	switch x := v.(type) {
	case int64:
		return float64(x), true
	case int:
		return float64(x), true
	case float64:
		return x, true
	case *big.Int:
		f, _ := new(big.Float).SetInt(x).Float64()
		return f, true
	case string:
		f, err := strconv.ParseFloat(x, 64)
		return f, err == nil
	}
	return 0, false
}

func integer(d *torch.Dict, key string) int64 {
	v, _ := d.Get(key)
	n, _ := number(v)
	return int64(n)
}
