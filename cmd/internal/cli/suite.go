package cli

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/zoo/data"
)

// suite is a list of models with what is timed of each: the file of --suite.
type suite struct {
	Sections []*suiteSection
}

type suiteSection struct {
	Title    string
	Variants []variant
	Groups   []*suiteGroup
}

type suiteGroup struct {
	Title  string
	Models []*suiteModel
}

// suiteModel is a row; paths are below the folder that the suite is run on.
type suiteModel struct {
	Path   string
	random bool // has no weights
	start  bool
	set    dataSet
}

// dataSet is what a classifier's variants are compared on.
type dataSet struct {
	data, labels string
	recipe       *data.Preprocess
	scale, shift float64
	first, every int
}

// variant is a column: the precision and the CPU that code is made for.
type variant struct{ precision, cpu string }

func (v variant) String() string {
	if v.cpu == "" {
		return v.precision
	}
	return v.precision + "@" + v.cpu
}

func parseVariant(s string) (variant, error) {
	p, c, _ := strings.Cut(s, "@")
	_, err := codegenFlags{precision: p}.options()
	return variant{p, c}, err
}

func parseVariants(texts []string) ([]variant, error) {
	var list []variant
	for _, s := range texts {
		v, err := parseVariant(s)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// readSuite reads a suite and checks that each word of it is known.
func readSuite(path string) (*suite, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot read the suite: %w", err)
	}
	s, n := &suite{}, 0
	for line := range strings.Lines(string(b)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		if err := s.add(word, strings.TrimSpace(rest)); err != nil {
			return nil, fault.New(fault.Usage, "line %d: %w", n, err).InFile(path)
		}
	}
	if len(s.Sections) == 0 {
		return nil, fault.New(fault.Usage, "the suite has no section").InFile(path)
	}
	return s, nil
}

func (s *suite) add(word, rest string) error {
	if word == "section" {
		s.Sections = append(s.Sections, &suiteSection{Title: rest})
		return nil
	}
	if len(s.Sections) == 0 {
		return fault.New(fault.Usage, "%s stands before the first section", word)
	}
	sec := s.Sections[len(s.Sections)-1]
	switch word {
	case "variants":
		var err error
		sec.Variants, err = parseVariants(strings.Fields(rest))
		return err
	case "group":
		sec.Groups = append(sec.Groups, &suiteGroup{Title: rest})
		return nil
	case "model":
		if len(sec.Groups) == 0 || len(sec.Variants) == 0 {
			return fault.New(fault.Usage, "a model needs a group and variants before it")
		}
		m, err := parseSuiteModel(rest)
		if err == nil {
			g := sec.Groups[len(sec.Groups)-1]
			g.Models = append(g.Models, m)
		}
		return err
	}
	return fault.New(fault.Usage, "unknown word %q", word).Hint("use section, variants, group or model")
}

func parseSuiteModel(text string) (*suiteModel, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return nil, fault.New(fault.Usage, "a model needs a path")
	}
	m := &suiteModel{Path: words[0], set: dataSet{scale: 1, every: 1}}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		var err error
		switch key {
		case "weights":
			m.random, err = true, choice(key, value, "random")
		case "start":
			m.start, err = true, choice(key, value, "yes")
		case "data":
			m.set.data = value
		case "labels":
			m.set.labels = value
		case "recipe":
			m.set.recipe, err = data.ParsePreprocess(value)
		case "scale":
			m.set.scale, err = parseFraction(value)
		case "shift":
			m.set.shift, err = parseFraction(value)
		case "first":
			m.set.first, err = strconv.Atoi(value)
		case "every":
			if m.set.every, err = strconv.Atoi(value); err == nil && m.set.every < 1 {
				err = fault.New(fault.Usage, "every=%s takes nothing", value)
			}
		default:
			err = fault.New(fault.Usage, "unknown key %q", key)
		}
		if err != nil {
			return nil, fault.New(fault.Usage, "%s: %w", w, err)
		}
	}
	return m, nil
}

// parseFraction reads 0.5 or 2/255.
func parseFraction(s string) (float64, error) {
	num, den, frac := strings.Cut(s, "/")
	v, err := strconv.ParseFloat(num, 64)
	if err != nil || !frac {
		return v, err
	}
	d, err := strconv.ParseFloat(den, 64)
	return v / d, err
}

// filter keeps the models whose path matches and the variants that are asked
// for; what is left empty goes.
func (s *suite) filter(keep func(path string) bool, variants []variant) *suite {
	out := &suite{}
	for _, sec := range s.Sections {
		c := &suiteSection{Title: sec.Title, Variants: sec.Variants}
		if len(variants) > 0 {
			c.Variants = variants
		}
		for _, g := range sec.Groups {
			h := &suiteGroup{Title: g.Title}
			for _, m := range g.Models {
				if keep(m.Path) {
					h.Models = append(h.Models, m)
				}
			}
			if len(h.Models) > 0 {
				c.Groups = append(c.Groups, h)
			}
		}
		if len(c.Groups) > 0 {
			out.Sections = append(out.Sections, c)
		}
	}
	return out
}

// file is the model's file below a folder.
func (m *suiteModel) file(root string) string {
	path := filepath.Join(root, filepath.FromSlash(m.Path))
	if isDir(path) {
		return filepath.Join(path, "model.onnx")
	}
	return path
}

func (m *suiteModel) name() string { return filepath.Base(m.Path) }
