package checkpoint

import (
	"bytes"
	"slices"
	"sort"

	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
)

// Summary is what inspect tells of a checkpoint.
type Summary struct {
	Format   string        `json:"format"`
	Version  string        `json:"version,omitempty"`
	Tag      string        `json:"tag,omitempty"`
	Topology atom.Topology `json:"topology"`
	Params   int           `json:"parameters"`
	Elements int64         `json:"elements"`
	Bytes    int64         `json:"bytes"`
	States   []string      `json:"states"`
	DTypes   []string      `json:"dtypes"`
	Groups   int           `json:"optimizer_groups"`
	Files    int           `json:"files"`
	Unknown  []string      `json:"opaque_classes,omitempty"`
	Warnings []string      `json:"warnings,omitempty"`
	List     []ParamInfo   `json:"list"`
}

// ParamInfo describes one parameter.
type ParamInfo struct {
	Name    string            `json:"name"`
	Shape   []int64           `json:"shape"`
	Kind    string            `json:"kind"`
	Pattern string            `json:"pattern"`
	Group   int               `json:"group"`
	Stages  []int             `json:"stages,omitempty"`
	Aliases []string          `json:"aliases,omitempty"`
	States  map[string]string `json:"states"`
	Shards  int               `json:"shards"`
}

// Summarize describes a checkpoint.
func Summarize(c *atom.Checkpoint) *Summary {
	s := &Summary{
		Format: c.Format, Version: c.Version, Tag: c.Tag(), Topology: c.Topology, Params: len(c.Params),
		Groups: len(c.Groups), Unknown: c.Unknown, Warnings: c.Warnings, List: []ParamInfo{}, States: []string{},
	}
	files, types, states := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, b := range c.Blobs {
		files[b.File] = true
	}
	s.Files = len(files)
	for _, p := range c.Params {
		info := ParamInfo{Name: p.Name, Shape: p.Shape, Kind: p.Kind.String(), Pattern: p.Rule.Describe(), Group: p.Group,
			Stages: p.Stages, Aliases: p.Aliases, States: map[string]string{}}
		for i, st := range p.States {
			if i == 0 {
				s.Elements += st.Numel()
				info.Shards = len(st.Pieces)
			}
			s.Bytes += st.Bytes()
			info.States[st.Name] = st.DType.String()
			types[st.DType.String()], states[st.Name] = true, true
		}
		s.List = append(s.List, info)
	}
	for t := range types {
		s.DTypes = append(s.DTypes, t)
	}
	for n := range states {
		s.States = append(s.States, n)
	}
	sort.Strings(s.DTypes)
	sort.Strings(s.States)
	return s
}

// Degrees is the topology as a spec states it.
func Degrees(c *atom.Checkpoint) spec.Degrees {
	t := c.Topology
	return spec.Degrees{TP: t.TP, PP: t.PP, DP: t.DP, EP: t.EP, Zero: t.Zero}
}

// Propose gives the checkpoint's own rules, or ones that fit its names and
// shards where it has none; guessed tells which.
func Propose(c *atom.Checkpoint) (s *spec.Spec, guessed bool, err error) {
	if len(c.Spec.Rules) > 0 {
		return c.Spec, false, nil
	}
	var shards []spec.Shard
	r := engine.NewReader(c)
	defer r.Close()
	for _, p := range c.Params {
		t := p.Weight()
		if p.Kind != atom.Trained || t == nil {
			continue
		}
		sh := spec.Shard{Name: p.Name}
		for i := range t.Pieces {
			sh.Shapes = append(sh.Shapes, t.Pieces[i].View.Local)
		}
		if len(sh.Shapes) > 1 {
			if sh.Equal, err = equalPieces(r, t); err != nil {
				return nil, false, err
			}
		}
		shards = append(shards, sh)
	}
	s = spec.Infer(shards)
	s.Version, s.OriginalVocab, s.PaddedVocab, s.VocabDivisor = c.Spec.Version, c.Spec.OriginalVocab, c.Spec.PaddedVocab, c.Spec.VocabDivisor
	return s, true, s.Compile()
}

// equalPieces reports whether all shards hold the same elements.
func equalPieces(r *engine.Reader, t *atom.Tensor) (bool, error) {
	var first []byte
	for i := range t.Pieces {
		p := t.Pieces[i]
		if !slices.Equal(p.View.Local, t.Pieces[0].View.Local) {
			return false, nil
		}
		if t.Bytes() > 64<<20 {
			return false, nil // large parameters are no replicas
		}
		b, err := r.Piece(t, p)
		if err != nil {
			return false, err
		}
		if i == 0 {
			first = b
		} else if !bytes.Equal(first, b) {
			return false, nil
		}
	}
	return true, nil
}
