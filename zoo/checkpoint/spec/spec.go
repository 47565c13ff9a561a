package spec

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Kind is how tensor parallelism treats a parameter.
type Kind string

// The patterns of the language.
const (
	Fragment   Kind = "fragment"   // cut along a dimension
	Replicated Kind = "replicated" // equal on all ranks
	Average    Kind = "average"    // drifted replicas, merged by their mean
	Unique     Kind = "unique"     // held by one rank alone
)

// A SubShape is DeepSpeed's SubparamShape: the shape of a parameter in which
// one dimension is a list of fused sub-parameters.
type SubShape struct {
	Patterns []string
	Shape    []Entry
	Dim      int
	// Open leaves all dimensions but Dim to what the files show.
	Open bool
}

// Closed gives the shape with the open dimensions filled from a local or
// logical shape.
func (s *SubShape) Closed(shape []int64) *SubShape {
	if !s.Open || s.Dim >= len(shape) {
		return s
	}
	c := &SubShape{Patterns: s.Patterns, Dim: s.Dim}
	for d, n := range shape {
		if d == s.Dim {
			c.Shape = append(c.Shape, s.Shape[s.Dim])
		} else {
			c.Shape = append(c.Shape, Entry{Sizes: []int64{n}})
		}
	}
	return c
}

// An Entry is a dimension: one number, or the sizes of sub-parameters.
type Entry struct {
	Tuple bool
	Sizes []int64
}

// Sum is the size of the dimension.
func (e Entry) Sum() int64 {
	n := int64(0)
	for _, s := range e.Sizes {
		n += s
	}
	return n
}

// A Rule gives a treatment to the parameters that its patterns match.
type Rule struct {
	Patterns []string
	// Kind may be empty in a rule that only sets flags.
	Kind Kind
	Dim  int
	// Count is the number of equal fused sub-parameters along Dim (2: SwiGLU).
	Count int
	// Sub gives fused sub-parameters of any sizes.
	Sub *SubShape
	// Widths are per sub-parameter the sizes on each rank of the source.
	Widths [][]int64
	// Heads are per sub-parameter the number of indivisible heads, 0 for none.
	Heads              []int64
	Vocabulary         bool
	PipelineReplicated bool
	Expert             bool
	Reason             string // why the parameter cannot be converted, if so

	res []*regexp.Regexp
}

// A Spec is a list of rules. Of the rules with a kind the first that matches
// counts; flags add up.
type Spec struct {
	// Version is universal_checkpoint_version; 0 means not stated.
	Version       float64
	OriginalVocab int64
	PaddedVocab   int64
	// VocabDivisor is what Megatron pads the vocabulary to a multiple of, per
	// tensor-parallel rank; 0 means unknown.
	VocabDivisor int64
	Rules        []Rule
	// Info is the universal_checkpoint_info that the spec was read from; nil if
	// the checkpoint has none.
	Info *torch.Dict
	// Stated tells that the rules are given, not guessed.
	Stated bool
}

// Match is what the rules say about one parameter.
type Match struct {
	Kind               Kind
	Dim                int
	Count              int
	Sub                *SubShape
	Widths             [][]int64
	Heads              []int64
	Vocabulary         bool
	PipelineReplicated bool
	Expert             bool
	Pattern            string // the pattern that decided the kind; "" for the default
}

// Compile prepares the patterns; all problems are reported together.
func (s *Spec) Compile() error {
	var errs []error
	for i := range s.Rules {
		r := &s.Rules[i]
		r.res = nil
		for _, p := range r.Patterns {
			re, err := CompilePython(p)
			if err != nil {
				errs = append(errs, err)
			}
			r.res = append(r.res, re)
		}
	}
	return errors.Join(errs...)
}

// match gives the first pattern of the rule that matches.
func (r *Rule) match(name string) (string, bool) {
	for i, re := range r.res {
		if re != nil && re.MatchString(name) {
			return r.Patterns[i], true
		}
	}
	return "", false
}

// Match finds what the rules say about a parameter. Two patterns of one kind
// that both match are an error, as they are for DeepSpeed, except for fused
// sub-parameters, of which the first counts.
func (s *Spec) Match(name string) (Match, error) {
	m := Match{Kind: Fragment}
	for i := range s.Rules {
		r := &s.Rules[i]
		p, ok := r.match(name)
		if !ok {
			continue
		}
		if r.Reason != "" {
			return m, fmt.Errorf("parameter %s cannot be converted: %s", name, r.Reason)
		}
		m.Vocabulary = m.Vocabulary || r.Vocabulary
		m.PipelineReplicated = m.PipelineReplicated || r.PipelineReplicated
		m.Expert = m.Expert || r.Expert
		if r.Kind == "" || m.Pattern != "" {
			continue
		}
		if r.Sub == nil {
			if q := r.second(name, p); q != "" {
				return m, fmt.Errorf("parameter %s matches two %s patterns, %q and %q", name, r.Kind, p, q)
			}
		}
		m.Pattern, m.Kind, m.Dim, m.Count = p, r.Kind, r.Dim, r.Count
		m.Sub, m.Widths, m.Heads = r.Sub, r.Widths, r.Heads
	}
	return m, nil
}

func (r *Rule) second(name, first string) string {
	for i, re := range r.res {
		if r.Patterns[i] != first && re != nil && re.MatchString(name) {
			return r.Patterns[i]
		}
	}
	return ""
}

// Unused lists the patterns that match none of the names.
func (s *Spec) Unused(names []string) []string {
	var out []string
	for i := range s.Rules {
		r := &s.Rules[i]
		for j, re := range r.res {
			if re != nil && !slices.ContainsFunc(names, re.MatchString) {
				out = append(out, r.Patterns[j])
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Describe is a short text of the treatment for people.
func (m Match) Describe() string {
	var b strings.Builder
	b.WriteString(string(m.Kind))
	if m.Kind == Fragment {
		fmt.Fprintf(&b, " dim %d", m.Dim)
	}
	if m.Count > 1 {
		fmt.Fprintf(&b, ", %d sub-parameters", m.Count)
	}
	if m.Sub != nil {
		fmt.Fprintf(&b, ", sub-parameters %v", m.Sub.Shape[m.Sub.Dim].Sizes)
	}
	for _, f := range []struct {
		on   bool
		name string
	}{{m.Vocabulary, "vocabulary"}, {m.PipelineReplicated, "pipeline-replicated"}, {m.Expert, "expert"}} {
		if f.on {
			b.WriteString(", " + f.name)
		}
	}
	return b.String()
}
