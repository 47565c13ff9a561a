package checkpoint

import (
	"regexp"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/internal/nearest"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
)

// Edit says what is left out or called otherwise. Patterns are Python's regular
// expressions, as in specs, and match from the beginning of a name.
type Edit struct {
	Only          []string
	Exclude       []string
	Rename        []string // pattern=replacement, replaced wherever it occurs
	DropOptimizer bool
	DropStates    []string
}

// Any reports whether the edit does anything.
func (e Edit) Any() bool {
	return e.DropOptimizer || len(e.Only)+len(e.Exclude)+len(e.Rename)+len(e.DropStates) > 0
}

// Apply edits a checkpoint in memory; files are not touched.
func (e Edit) Apply(c *atom.Checkpoint) error {
	only, err := compileAll(e.Only)
	if err != nil {
		return err
	}
	exclude, err := compileAll(e.Exclude)
	if err != nil {
		return err
	}
	if len(only) > 0 || len(exclude) > 0 {
		n := len(c.Params)
		c.Params = slices.DeleteFunc(c.Params, func(p *atom.Param) bool {
			return len(only) > 0 && !matchAny(only, p.Name) || matchAny(exclude, p.Name)
		})
		if len(c.Params) == 0 {
			return fault.New(fault.Usage, "no parameter is left of %d", n).Hint("lathe checkpoint inspect lists the names")
		}
		c.Edited = true
	}
	if err := e.states(c); err != nil {
		return err
	}
	return e.rename(c)
}

func compileAll(patterns []string) ([]*regexp.Regexp, error) {
	var out []*regexp.Regexp
	for _, p := range patterns {
		re, err := spec.CompilePython(p)
		if err != nil {
			return nil, fault.New(fault.Usage, "%w", err)
		}
		out = append(out, re)
	}
	return out, nil
}

func matchAny(res []*regexp.Regexp, name string) bool {
	return slices.ContainsFunc(res, func(re *regexp.Regexp) bool { return re.MatchString(name) })
}

// states drops optimizer states.
func (e Edit) states(c *atom.Checkpoint) error {
	all := c.StateNames()
	drop := slices.Clone(e.DropStates)
	for _, d := range drop {
		if !slices.Contains(all, d) {
			err := fault.New(fault.Usage, "the checkpoint has no state %q", d)
			if n := nearest.Find(d, all); n != "" {
				return err.Hint("did you mean %q?", n)
			}
			return err.Hint("its states are %s", strings.Join(all, ", "))
		}
	}
	if e.DropOptimizer {
		for _, s := range all {
			if s != atom.FP32 {
				drop = append(drop, s)
			}
		}
	}
	if len(drop) == 0 {
		return nil
	}
	for _, p := range c.Params {
		p.States = slices.DeleteFunc(p.States, func(s atom.State) bool { return slices.Contains(drop, s.Name) })
		if e.DropOptimizer {
			p.Step = nil
		}
	}
	return nil
}

var groupRef = regexp.MustCompile(`\\(\d+|g<\w+>)`)

// rename gives parameters other names.
func (e Edit) rename(c *atom.Checkpoint) error {
	for _, r := range e.Rename {
		from, to, ok := strings.Cut(r, "=")
		if !ok || from == "" {
			return fault.New(fault.Usage, "rename %q is not of the form pattern=replacement", r)
		}
		re, err := spec.CompilePythonSearch(from)
		if err != nil {
			return fault.New(fault.Usage, "%w", err)
		}
		// Python writes \1 where Go writes ${1}; a dollar is itself.
		to = strings.ReplaceAll(to, "$", "$$")
		to = groupRef.ReplaceAllStringFunc(to, func(g string) string {
			return "${" + strings.Trim(g[1:], "g<>") + "}"
		})
		hit := false
		for _, p := range c.Params {
			name := re.ReplaceAllString(p.Name, to)
			hit = hit || name != p.Name
			p.Name = name
			for i, a := range p.Aliases {
				p.Aliases[i] = re.ReplaceAllString(a, to)
			}
		}
		if !hit {
			return fault.New(fault.Usage, "rename %q matches no parameter", from)
		}
		c.Edited = true
	}
	seen := map[string]bool{}
	for _, p := range c.Params {
		for _, n := range append([]string{p.Name}, p.Aliases...) {
			if n == "" || seen[n] {
				return fault.New(fault.Usage, "after renaming, the name %q occurs twice or is empty", n)
			}
			seen[n] = true
		}
	}
	return nil
}
