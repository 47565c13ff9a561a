package onnx

import (
	"regexp"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// textOps work on strings: they run in the evaluator only.
var textOps = []Op{
	{Name: "StringConcat", Since: []int{20}, Expand: expandStringConcat},
	{Name: "StringSplit", Since: []int{20}, Expand: expandStringSplit},
	{Name: "StringNormalizer", Since: []int{10}, Expand: expandStringNormalizer},
	{Name: "RegexFullMatch", Since: []int{20}, Expand: expandRegexFullMatch},
	{Name: "TfIdfVectorizer", Since: []int{9}, Expand: expandTfIdf},
}

// texts is a constant string input.
func (c *Ctx) texts(i int) *tensor.Tensor {
	t := c.Tensor(i, "text")
	if t.DType != tensor.String {
		c.Fail("input %d is %s, not strings", i, t)
	}
	return t
}

func (c *Ctx) outTexts(i int, shape []int, s []string) {
	t, err := tensor.FromStrings(shape, s)
	if err != nil {
		c.Fail("%v", err)
	}
	c.Out(i, c.B.Const(t))
}

func (c *Ctx) strings(name string) []string {
	v, _ := c.N.Attr(name)
	s, _ := v.([]string)
	return s
}

func expandStringConcat(c *Ctx) {
	c.texts(0)
	c.texts(1)
	in := c.B.Broadcast(c.In(0), c.In(1))
	x, y := in[0].Const, in[1].Const
	if x == nil || y == nil {
		c.Dynamic("text")
	}
	out := make([]string, x.Len())
	for i := range out {
		out[i] = x.Strings()[i] + y.Strings()[i]
	}
	c.outTexts(0, x.Shape, out)
}

func expandStringSplit(c *Ctx) {
	x := c.texts(0)
	sep := c.N.Str("delimiter", "")
	limit := -1 // as many as there are
	if _, ok := c.N.Attr("maxsplit"); ok {
		limit = c.N.Int("maxsplit", 0)
	}
	parts := make([][]string, x.Len())
	counts := tensor.New(tensor.I64, x.Shape...)
	most := 0
	for i, s := range x.Strings() {
		parts[i] = splitText(s, sep, limit)
		counts.SetInt(i, int64(len(parts[i])))
		most = max(most, len(parts[i]))
	}
	out := make([]string, x.Len()*most)
	for i, p := range parts {
		copy(out[i*most:], p)
	}
	c.outTexts(0, append(slices.Clone(x.Shape), most), out)
	c.Out(1, c.B.Const(counts))
}

// splitText cuts at most limit times; without a separator at runs of white
// space, of which none is kept.
func splitText(s, sep string, limit int) []string {
	if sep != "" {
		if limit < 0 {
			return strings.Split(s, sep)
		}
		return strings.SplitN(s, sep, limit+1)
	}
	var out []string
	for s = strings.TrimSpace(s); s != ""; {
		if limit >= 0 && len(out) == limit {
			return append(out, s)
		}
		word := s
		if i := strings.IndexFunc(s, isSpace); i >= 0 {
			word = s[:i]
		}
		out = append(out, word)
		s = strings.TrimLeftFunc(s[len(word):], isSpace)
	}
	return out
}

func isSpace(r rune) bool { return strings.TrimSpace(string(r)) == "" }

func expandStringNormalizer(c *Ctx) {
	x := c.texts(0)
	action := c.OneOf("case_change_action", c.N.Str("case_change_action", "NONE"), "NONE", "LOWER", "UPPER")
	exact := c.N.Int("is_case_sensitive", 0) == 1
	if len(x.Shape) != 1 && (len(x.Shape) != 2 || x.Shape[0] != 1) {
		c.Fail("input %s: strings of shape [C] or [1, C] are normalized", x)
	}
	fold := func(s string) string { return s }
	if !exact {
		fold = strings.ToLower
	}
	stop := map[string]bool{}
	for _, w := range c.strings("stopwords") {
		stop[fold(w)] = true
	}
	out := []string{}
	for _, s := range x.Strings() {
		if stop[fold(s)] {
			continue
		}
		switch action {
		case "LOWER":
			s = strings.ToLower(s)
		case "UPPER":
			s = strings.ToUpper(s)
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		out = []string{""}
	}
	shape := slices.Clone(x.Shape)
	shape[len(shape)-1] = len(out)
	c.outTexts(0, shape, out)
}

func expandRegexFullMatch(c *Ctx) {
	x := c.texts(0)
	re, err := regexp.Compile(`\A(?:` + c.N.Str("pattern", "") + `)\z`)
	if err != nil {
		c.Fail("pattern: %v", err)
	}
	out := tensor.New(tensor.Bool, x.Shape...)
	for i, s := range x.Strings() {
		if re.MatchString(s) {
			out.SetInt(i, 1)
		}
	}
	c.Out(0, c.B.Const(out))
}

// gram is a node of the tree of n-grams, by item.
type gram struct {
	next map[any]*gram
	id   int // of the n-gram that ends here, from 0; -1: none does
}

func newGram() *gram { return &gram{next: map[any]*gram{}, id: -1} }

// tfidf counts n-grams.
type tfidf struct {
	root              *gram
	least, most, skip int
	column            []int // by n-gram
	width             int
}

func (c *Ctx) readTfIdf() *tfidf {
	v := &tfidf{root: newGram(), least: c.N.Int("min_gram_length", 1), most: c.N.Int("max_gram_length", 1), skip: c.N.Int("max_skip_count", 0), column: c.N.Ints("ngram_indexes")}
	var pool []any
	for _, s := range c.strings("pool_strings") {
		pool = append(pool, s)
	}
	for _, n := range c.N.Ints("pool_int64s") {
		pool = append(pool, int64(n))
	}
	starts := c.N.Ints("ngram_counts")
	if v.least < 1 || v.most < v.least || v.skip < 0 || len(v.column) == 0 {
		c.Fail("n-grams of %d to %d items, %d skipped, %d indexes", v.least, v.most, v.skip, len(v.column))
	}
	for _, x := range v.column {
		if x < 0 {
			c.Fail("ngram_indexes holds %d", x)
		}
		v.width = max(v.width, x+1)
	}
	id := 0
	for k, from := range starts {
		n, to := k+1, len(pool)
		if k+1 < len(starts) {
			to = starts[k+1]
		}
		if from < 0 || to > len(pool) || from > to || (to-from)%n != 0 {
			c.Fail("ngram_counts %v do not divide a pool of %d items", starts, len(pool))
		}
		for ; from < to; from += n {
			if id >= len(v.column) {
				c.Fail("%d ngram_indexes for more n-grams", len(v.column))
			}
			if n >= v.least && n <= v.most {
				v.root.add(pool[from:from+n], id)
			}
			id++
		}
	}
	return v
}

func (g *gram) add(items []any, id int) {
	for _, it := range items {
		if g.next[it] == nil {
			g.next[it] = newGram()
		}
		g = g.next[it]
	}
	g.id = id
}

// count adds the n-grams of a row, with 0 to skip items left out between
// neighbours; single items count once.
func (v *tfidf) count(row []any, into []float64) {
	least := v.least
	for stride := 1; stride <= v.skip+1; stride++ {
		for start := range row {
			if start+stride*(least-1) >= len(row) {
				break
			}
			g, at := v.root, start
			for n := 1; n <= v.most && at < len(row); n++ {
				if g = g.next[row[at]]; g == nil {
					break
				}
				if n >= least && g.id >= 0 {
					into[v.column[g.id]]++
				}
				at += stride
			}
		}
		if least == 1 {
			if least = 2; least > v.most {
				return
			}
		}
	}
}

func expandTfIdf(c *Ctx) {
	x := c.Tensor(0, "text")
	mode := c.OneOf("mode", c.N.Str("mode", ""), "TF", "IDF", "TFIDF")
	v := c.readTfIdf()
	if len(x.Shape) > 2 {
		c.Fail("input %s: items of shape [C] or [N, C] are counted", x)
	}
	rows, cols, shape := 1, x.Len(), []int{v.width}
	if len(x.Shape) == 2 {
		rows, cols, shape = x.Shape[0], x.Shape[1], []int{x.Shape[0], v.width}
	}
	weights := c.floats("weights")
	if len(weights) > 0 && len(weights) != len(v.column) {
		c.Fail("%d weights for %d n-grams", len(weights), len(v.column))
	}
	// A weight belongs to an n-gram: ngram_indexes says to which column.
	weight := slices.Repeat([]float64{1}, v.width)
	for i, w := range weights {
		weight[v.column[i]] = float64(w)
	}
	out := tensor.New(tensor.F32, shape...)
	for r := range rows {
		row := make([]any, cols)
		for i := range row {
			if x.DType == tensor.String {
				row[i] = x.Strings()[r*cols+i]
			} else {
				row[i] = x.Int(r*cols + i)
			}
		}
		count := make([]float64, v.width)
		v.count(row, count)
		for i, n := range count {
			switch {
			case mode == "TFIDF":
				n *= weight[i]
			case mode == "IDF" && n > 0:
				n = weight[i]
			}
			out.SetFloat(r*v.width+i, n)
		}
	}
	c.Out(0, c.B.Const(out))
}
