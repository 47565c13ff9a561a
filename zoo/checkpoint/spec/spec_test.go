package spec

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestPythonPatterns holds what Python 3.11's re.match says; each row was run
// there.
func TestPythonPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		match         bool
	}{
		{`layers.0`, "layers.0.weight", true}, // anchored at the beginning only
		{`0.weight`, "layers.0.weight", false},
		{`\d+.weight`, "12xweight", true}, // the dot is a wildcard
		{`layers\.\d+\.w$`, "layers.3.w", true},
		{`layers\.\d+\.w$`, "layers.3.w2", false},
		{`w$`, "w\n", true}, // $ before a final newline
		{`w\Z`, "w\n", false},
		{`a{,2}b`, "aab", true}, // {,n} is a repetition
		{`a{,2}b`, "aaab", false},
		{`a{x}`, "a{x}", true}, // a brace that is none
		{`[[a]`, "[", true},
		{`[]a]`, "]", true},
		{`[^]a]`, "b", true},
		{`\w+\.\w+`, "größe.weight", true}, // Unicode words
		{`\d`, "٣", true},                  // Unicode digits
		{`(?i)LAYER`, "layer", true},
		{`a(?#comment)b`, "ab", true},
		{`(?P<n>a)b`, "ab", true},
		{`(?:a|b)+?c`, "abac", true},
		{`x[\d_]+y`, "x1_2y", true},
		{`a\/b`, "a/b", true},
		{`[\w\-]+z`, "a-bz", true},
		{`a\.b|c`, "cx", true},
	} {
		re, err := CompilePython(c.pattern)
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
			continue
		}
		if got := re.MatchString(c.name); got != c.match {
			t.Errorf("%q on %q: %v, Python says %v", c.pattern, c.name, got, c.match)
		}
	}
}

func TestRefusedPatterns(t *testing.T) {
	for pattern, feature := range map[string]string{
		`(?!lm_head)x`: "negative look-ahead assertion", `a(?=b)`: "look-ahead assertion",
		`(?<=a)b`: "look-behind assertion", `(?<!a)b`: "negative look-behind assertion",
		`(a)\1`: "back-reference", `(?P<n>a)(?P=n)`: "back-reference", `(?>a)b`: "atomic group",
		`(a)?(?(1)b|c)`: "conditional group", `a*+b`: "possessive repetition", `(?x) a`: "verbose flag (?x)",
		`a{2000}`: "repetition of more than 1000", `\N{DIGIT ONE}`: "named character",
	} {
		_, err := CompilePython(pattern)
		var pe *PatternError
		if !errors.As(err, &pe) || pe.Feature != feature {
			t.Errorf("%q: %v, want the feature %q named", pattern, err, feature)
		}
	}
}

const example = `
universal_checkpoint_version: 0.4
topology: {tp: 4, pp: 1, dp: 2, zero: 1}
vocabulary: {original: 67, padded: 72, divisible_by: 4}
parameters:
  - patterns: ['layers\.\d+\.norm\.weight']
    pattern: replicated
  - patterns: ['layers\.\d+\.o\.weight']
    parallel: row
  - patterns: ['layers\.\d+\.up\.weight']
    pattern: fragment
    dim: 0
    sub_params_count: 2
  - patterns: ['layers\.\d+\.qkv\.weight', 'layers\.\d+\.qkv\.bias']
    sub_params:
      - {size: 16, heads: 8}
      - {size: 4, heads: 2}
      - {size: 4, heads: 2}
  - patterns: ['layers\.\d+\.odd\.weight']
    dim: 1
    sub_params:
      - {size: 7, widths: [2, 2, 2, 1]}
  - patterns: ['embed\.weight']
    vocabulary: true
    pipeline_replicated: true
`

func TestYAML(t *testing.T) {
	s, d, err := Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if d != (Degrees{TP: 4, PP: 1, DP: 2, Zero: 1}) || s.VocabDivisor != 4 || s.Version != 0.4 {
		t.Errorf("degrees %+v, divisor %d", d, s.VocabDivisor)
	}
	b, err := s.Print(d)
	if err != nil {
		t.Fatal(err)
	}
	again, e, err := Parse(b)
	if err != nil || e != d {
		t.Fatalf("%v\n%s", err, b)
	}
	for i := range s.Rules {
		s.Rules[i].res, again.Rules[i].res = nil, nil
	}
	if !reflect.DeepEqual(s, again) {
		t.Errorf("printed and read again:\n%+v\nwant\n%+v", again, s)
	}
}

func TestShards(t *testing.T) {
	s, _, err := Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		locals [][]int64
		shape  []int64
	}{
		{"layers.0.norm.weight", [][]int64{{8}, {8}, {8}, {8}}, []int64{8}},
		{"layers.0.o.weight", [][]int64{{8, 2}, {8, 2}, {8, 2}, {8, 2}}, []int64{8, 8}},
		{"layers.0.up.weight", [][]int64{{4, 8}, {4, 8}, {4, 8}, {4, 8}}, []int64{16, 8}},
		// four ranks hold 4 query rows each and a copy of one of two heads
		{"layers.0.qkv.weight", [][]int64{{8, 8}, {8, 8}, {8, 8}, {8, 8}}, []int64{24, 8}},
		{"layers.0.qkv.bias", [][]int64{{8}, {8}, {8}, {8}}, []int64{24}},
		{"layers.0.odd.weight", [][]int64{{3, 2}, {3, 2}, {3, 2}, {3, 1}}, []int64{3, 7}},
		{"embed.weight", [][]int64{{18, 4}, {18, 4}, {18, 4}, {18, 4}}, []int64{67, 4}},
	} {
		m, err := s.Match(c.name)
		if err != nil {
			t.Fatal(err)
		}
		shape, views, err := m.Merge(c.locals, s.OriginalVocab)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !slices.Equal(shape, c.shape) {
			t.Errorf("%s: shape %v, want %v", c.name, shape, c.shape)
		}
		cut, err := m.Cut(shape, 4, 72)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !reflect.DeepEqual(cut, views) {
			t.Errorf("%s: cut again %+v, merged from %+v", c.name, cut, views)
		}
	}
}

func TestSpecErrors(t *testing.T) {
	for text, want := range map[string]string{
		"parameters: [{patterns: ['a'], pattern: sharded}]":                 "not one of",
		"parameters: [{patterns: []}]":                                      "no patterns",
		"parameters: [{patterns: ['a'], pattern: replicated, dim: 1}]":      "has no dimension",
		"parameters: [{patterns: ['a'], dimension: 1}]":                     "unknown field",
		"parameters: [{patterns: ['(?!a)b'], dim: 1}]":                      "negative look-ahead",
		"parameters: [{patterns: ['a'], parallel: diagonal}]":               "neither row nor column",
		"parameters: [{patterns: ['a'], dim: 0, sub_params: [{heads: 2}]}]": "no size",
	} {
		if _, _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	s := &Spec{Rules: []Rule{{Kind: Replicated, Patterns: []string{`a.*`, `.b`}}}}
	if err := s.Compile(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Match("ab"); err == nil || !strings.Contains(err.Error(), "matches two replicated patterns") {
		t.Errorf("two patterns: %v", err)
	}
	if u := s.Unused([]string{"ab"}); len(u) != 0 {
		t.Errorf("unused %v", u)
	}
}

func TestInfer(t *testing.T) {
	s := Infer([]Shard{
		{Name: "layers.0.norm.weight", Shapes: [][]int64{{8}, {8}}, Equal: true},
		{Name: "layers.1.norm.weight", Shapes: [][]int64{{8}, {8}}, Equal: true},
		{Name: "layers.0.o_proj.weight", Shapes: [][]int64{{8, 4}, {8, 4}}},
		{Name: "layers.0.q_proj.weight", Shapes: [][]int64{{4, 8}, {4, 8}}},
		{Name: "lm_head.weight", Shapes: [][]int64{{30, 8}, {30, 8}}},
	})
	if err := s.Compile(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"layers.7.norm.weight": "replicated", "layers.7.o_proj.weight": "fragment dim 1",
		"layers.7.q_proj.weight": "fragment dim 0", "lm_head.weight": "fragment dim 0, vocabulary",
	} {
		if m, err := s.Match(name); err != nil || m.Describe() != want {
			t.Errorf("%s: %s, want %s", name, m.Describe(), want)
		}
	}
}
