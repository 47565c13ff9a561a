package spec

import (
	"regexp"
	"slices"
	"strings"
)

// Shard is what one tensor-parallel rank holds of a parameter, for proposals.
type Shard struct {
	Name   string
	Shapes [][]int64 // per rank
	// Equal tells that the ranks hold equal elements.
	Equal bool
}

// families are the names that model families give to parameters that are cut
// along dimension 1: the second of two linear layers in a row.
var rowNames = regexp.MustCompile(`(dense_4h_to_h|self_attention\.dense|attention\.dense|attn\.dense|o_proj|out_proj|down_proj|c_proj|fc2|w2|wo|linear_fc2|linear_proj|dense_2)\.weight$`)

var vocabNames = regexp.MustCompile(`(word_embeddings|embed_tokens|wte|tok_embeddings|lm_head|embed_out|output_layer)\.weight$`)

var normNames = regexp.MustCompile(`(?i)(norm|ln_\w+|layernorm)[^.]*\.(weight|bias)$`)

// generalize quotes a name; parts that are numbers match any number.
func generalize(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		if p != "" && strings.Trim(p, "0123456789") == "" {
			parts[i] = `\d+`
		} else {
			parts[i] = regexp.QuoteMeta(p)
		}
	}
	return strings.Join(parts, `\.`)
}

// Infer proposes rules from names and shards. What the ranks hold decides where
// it can: equal shards are replicas, and a bias whose weight is cut along its
// rows is whole on every rank. The rest follows names that model families use,
// and must be checked by a person.
func Infer(shards []Shard) *Spec {
	s := &Spec{}
	lists := map[string][]string{}
	add := func(kind, name string) {
		p := `^` + generalize(name) + `$`
		if !slices.Contains(lists[kind], p) {
			lists[kind] = append(lists[kind], p)
		}
	}
	for _, x := range shards {
		first := x.Shapes[0]
		same := !slices.ContainsFunc(x.Shapes, func(o []int64) bool { return !slices.Equal(o, first) })
		switch {
		case len(x.Shapes) > 1 && x.Equal, len(x.Shapes) == 1 && normNames.MatchString(x.Name) && len(first) == 1:
			add("replicated", x.Name)
		case len(x.Shapes) > 1 && same && normNames.MatchString(x.Name) && len(first) == 1:
			add("average", x.Name)
		case len(first) > 1 && rowNames.MatchString(x.Name):
			add("row", x.Name)
		case len(first) == 1 && rowNames.MatchString(x.Name[:len(x.Name)-len(tail(x.Name))]+"weight") && len(x.Shapes) == 1:
			add("replicated", x.Name)
		}
		if len(first) == 2 && vocabNames.MatchString(x.Name) {
			add("vocab", x.Name)
		}
	}
	for _, r := range []struct {
		key  string
		rule Rule
	}{
		{"replicated", Rule{Kind: Replicated}}, {"average", Rule{Kind: Average}},
		{"row", Rule{Kind: Fragment, Dim: 1}}, {"vocab", Rule{Vocabulary: true}},
	} {
		if len(lists[r.key]) > 0 {
			r.rule.Patterns = lists[r.key]
			s.Rules = append(s.Rules, r.rule)
		}
	}
	return s
}

// tail is the last part of a dotted name.
func tail(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '.' {
			return name[i+1:]
		}
	}
	return name
}
