package spec

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
)

// text is the YAML form of a spec.
type text struct {
	Version    float64    `yaml:"universal_checkpoint_version,omitempty"`
	Topology   *topology  `yaml:"topology,omitempty"`
	Vocabulary *vocab     `yaml:"vocabulary,omitempty"`
	Parameters []textRule `yaml:"parameters"`
}

// topology is for readers: it says what was found, and is checked when given.
type topology struct {
	TP   int `yaml:"tp"`
	PP   int `yaml:"pp"`
	DP   int `yaml:"dp"`
	EP   int `yaml:"ep,omitempty"`
	Zero int `yaml:"zero"`
}

type vocab struct {
	Original int64 `yaml:"original,omitempty"`
	Padded   int64 `yaml:"padded,omitempty"`
	Divisor  int64 `yaml:"divisible_by,omitempty"`
}

type textRule struct {
	Patterns   []string  `yaml:"patterns"`
	Pattern    string    `yaml:"pattern,omitempty"`
	Dim        *int      `yaml:"dim,omitempty"`
	Parallel   string    `yaml:"parallel,omitempty"` // column or row, instead of dim
	SubParams  []textSub `yaml:"sub_params,omitempty"`
	SubCount   int       `yaml:"sub_params_count,omitempty"`
	Shape      []any     `yaml:"shape,omitempty"` // SubparamShape.shape
	Vocabulary bool      `yaml:"vocabulary,omitempty"`
	Pipeline   bool      `yaml:"pipeline_replicated,omitempty"`
	Expert     bool      `yaml:"expert,omitempty"`
}

// textSub is a fused sub-parameter: a size, and how ranks share it.
type textSub struct {
	Size   int64   `yaml:"size"`
	Heads  int64   `yaml:"heads,omitempty"`
	Widths []int64 `yaml:"widths,flow,omitempty"`
}

// Degrees is the topology that a spec states; zero for what it does not.
type Degrees struct{ TP, PP, DP, EP, Zero int }

// Parse reads the text form.
func Parse(data []byte) (*Spec, Degrees, error) {
	var t text
	d := yaml.NewDecoder(bytes.NewReader(data), yaml.DisallowUnknownField())
	if err := d.Decode(&t); err != nil {
		return nil, Degrees{}, fmt.Errorf("spec: %s", strings.TrimSpace(yaml.FormatError(err, false, true)))
	}
	s := &Spec{Version: t.Version, Stated: true}
	if v := t.Vocabulary; v != nil {
		s.OriginalVocab, s.PaddedVocab, s.VocabDivisor = v.Original, v.Padded, v.Divisor
	}
	for i, tr := range t.Parameters {
		r, err := tr.rule()
		if err != nil {
			return nil, Degrees{}, fmt.Errorf("spec: rule %d (%s): %w", i+1, strings.Join(tr.Patterns, " "), err)
		}
		s.Rules = append(s.Rules, r)
	}
	var deg Degrees
	if x := t.Topology; x != nil {
		deg = Degrees{x.TP, x.PP, x.DP, x.EP, x.Zero}
	}
	return s, deg, s.Compile()
}

func (t textRule) rule() (Rule, error) {
	r := Rule{Patterns: t.Patterns, Kind: Kind(t.Pattern), Vocabulary: t.Vocabulary, PipelineReplicated: t.Pipeline, Expert: t.Expert}
	if len(t.Patterns) == 0 {
		return r, fmt.Errorf("it has no patterns")
	}
	shaped := t.Dim != nil || t.Parallel != "" || len(t.SubParams) > 0 || t.SubCount > 0 || len(t.Shape) > 0
	switch r.Kind {
	case "":
		if shaped {
			r.Kind = Fragment
		}
	case Fragment:
	case Replicated, Average, Unique:
		if shaped {
			return r, fmt.Errorf("a %s parameter has no dimension and no sub-parameters", r.Kind)
		}
	default:
		return r, fmt.Errorf("pattern %q is not one of fragment, replicated, average, unique", t.Pattern)
	}
	switch t.Parallel {
	case "", "column":
	case "row":
		r.Dim = 1
	default:
		return r, fmt.Errorf("parallel %q is neither row nor column", t.Parallel)
	}
	if t.Dim != nil {
		r.Dim = *t.Dim
	}
	if r.Dim < 0 {
		return r, fmt.Errorf("dimension %d is negative", r.Dim)
	}
	return r, t.subs(&r)
}

// subs takes fused sub-parameters.
func (t textRule) subs(r *Rule) error {
	r.Count = t.SubCount
	if len(t.Shape) > 0 {
		sub := &SubShape{Patterns: t.Patterns, Dim: r.Dim}
		for _, x := range t.Shape {
			e, err := entry(x)
			if err != nil {
				return err
			}
			sub.Shape = append(sub.Shape, e)
		}
		if r.Dim >= len(sub.Shape) {
			return fmt.Errorf("dimension %d is outside shape %v", r.Dim, t.Shape)
		}
		r.Sub = sub
	}
	if len(t.SubParams) == 0 {
		return nil
	}
	if r.Sub == nil {
		// The other dimensions are what the files show.
		r.Sub = &SubShape{Patterns: t.Patterns, Dim: r.Dim, Open: true}
	}
	e := Entry{Tuple: true}
	for _, p := range t.SubParams {
		if p.Size <= 0 {
			return fmt.Errorf("a sub-parameter has no size")
		}
		e.Sizes = append(e.Sizes, p.Size)
		r.Heads = append(r.Heads, p.Heads)
		r.Widths = append(r.Widths, p.Widths)
	}
	if r.Sub.Open {
		r.Sub.Shape = append(make([]Entry, r.Dim), e)
		for d := range r.Dim {
			r.Sub.Shape[d] = Entry{Sizes: []int64{-1}}
		}
		return nil
	}
	r.Sub.Shape[r.Dim] = e
	return nil
}

func entry(x any) (Entry, error) {
	one := func(x any) (int64, bool) {
		switch n := x.(type) {
		case int64:
			return n, true
		case uint64:
			return int64(n), true
		case int:
			return int64(n), true
		}
		return 0, false
	}
	if n, ok := one(x); ok {
		return Entry{Sizes: []int64{n}}, nil
	}
	l, ok := x.([]any)
	if !ok {
		return Entry{}, fmt.Errorf("shape entry %v is neither a number nor a list", x)
	}
	e := Entry{Tuple: true}
	for _, it := range l {
		n, ok := one(it)
		if !ok {
			return e, fmt.Errorf("shape entry %v holds %v", x, it)
		}
		e.Sizes = append(e.Sizes, n)
	}
	return e, nil
}

// Print gives the text form; Parse reads it back.
func (s *Spec) Print(d Degrees) ([]byte, error) {
	t := text{Version: s.Version, Parameters: []textRule{}}
	if d.TP > 0 {
		t.Topology = &topology{d.TP, d.PP, d.DP, d.EP, d.Zero}
	}
	if s.OriginalVocab > 0 || s.VocabDivisor > 0 {
		t.Vocabulary = &vocab{s.OriginalVocab, s.PaddedVocab, s.VocabDivisor}
	}
	for _, r := range s.Rules {
		t.Parameters = append(t.Parameters, r.text())
	}
	return yaml.MarshalWithOptions(t, yaml.IndentSequence(true))
}

func (r Rule) text() textRule {
	t := textRule{Patterns: r.Patterns, Pattern: string(r.Kind), SubCount: r.Count,
		Vocabulary: r.Vocabulary, Pipeline: r.PipelineReplicated, Expert: r.Expert}
	if r.Kind == Fragment {
		dim := r.Dim
		t.Dim = &dim
	}
	if r.Sub == nil {
		return t
	}
	if !r.Sub.Open {
		for _, e := range r.Sub.Shape {
			if e.Tuple {
				t.Shape = append(t.Shape, e.Sizes)
			} else {
				t.Shape = append(t.Shape, e.Sizes[0])
			}
		}
	}
	if e := r.Sub.Shape[r.Sub.Dim]; e.Tuple && (r.Sub.Open || len(r.Heads) > 0 || len(r.Widths) > 0) {
		for i, n := range e.Sizes {
			x := textSub{Size: n}
			if i < len(r.Heads) {
				x.Heads = r.Heads[i]
			}
			if i < len(r.Widths) {
				x.Widths = r.Widths[i]
			}
			t.SubParams = append(t.SubParams, x)
		}
	}
	return t
}
