package deepspeed

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Options says how a source is read.
type Options struct {
	// Spec replaces the rules that the checkpoint records; nil keeps them.
	Spec *spec.Spec
	// Partial accepts missing ranks: for inspect, which reports them.
	Partial bool
	// WeightsOnly does not read optimizer files at all when the model files
	// hold the weights.
	WeightsOnly bool
}

// Is reports whether a folder of a store looks like a native checkpoint.
func Is(s weights.Store, folder string) bool {
	l, err := list(s, folder)
	return err == nil && (len(l.model) > 0 || len(l.model3) > 0 || len(l.optim) > 0)
}

func list(s weights.Store, folder string) (*listing, error) {
	entries, err := s.List(folder)
	if err != nil {
		return nil, err
	}
	l := &listing{}
	for _, e := range entries {
		switch {
		case !e.Dir:
			l.add(path.Base(e.Name))
		case path.Base(e.Name) == "offloaded_tensors":
			l.offloaded = true
		}
	}
	for _, f := range [][]rankFile{l.model, l.model3, l.optim, l.layer, l.expert, l.expp} {
		slices.SortFunc(f, func(x, y rankFile) int {
			for _, d := range []int{x.a - y.a, x.b - y.b, x.mp - y.mp} {
				if d != 0 {
					return d
				}
			}
			return strings.Compare(x.name, y.name)
		})
	}
	return l, nil
}

// reader is the state of reading one checkpoint.
type reader struct {
	opt         Options
	c           *atom.Checkpoint
	book        *atom.Book
	files       *listing
	ranks       []*rank // by model-parallel rank
	shared      map[string]string
	frozen      map[string]bool
	buffer      map[string]bool
	expertFiles map[string]*torch.Dict
}

// rank is what one model-parallel rank holds.
type rank struct {
	mp, pp, tp int
	groups     []group
	params     map[string]*local
	order      []string
}

// group is a flat group of the optimizer: names and local shapes in the order
// of the data.
type group struct {
	names  []string
	shapes [][]int64
	param  int // the optimizer's param_group
}

// local is a parameter as one model-parallel rank holds it.
type local struct {
	name    string
	shape   []int64
	group   int
	states  []localState
	step    torch.Value
	places  []atom.Place
	expert  bool
	aliases []string
}

type localState struct {
	name  string
	piece localPiece
}

func bad(file, format string, args ...any) error {
	return fault.New(fault.BadModel, format, args...).InFile(file)
}

// Open reads a native checkpoint from a tag folder of a store.
func Open(s weights.Store, folder string, opt Options) (*atom.Checkpoint, error) {
	l, err := list(s, folder)
	if err != nil {
		return nil, err
	}
	c := &atom.Checkpoint{Format: "deepspeed", Store: s, Folder: folder}
	r := &reader{
		opt: opt, c: c, book: atom.NewBook(c), files: l,
		shared: map[string]string{}, frozen: map[string]bool{}, buffer: map[string]bool{},
	}
	if err := r.run(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (r *reader) run() error {
	if r.files.offloaded {
		r.c.Warnf("optimizer state that was offloaded to NVMe (offloaded_tensors) is not read")
	}
	if err := r.models(); err != nil {
		return err
	}
	if err := r.optimizers(); err != nil {
		return err
	}
	if err := r.modules(); err != nil {
		return err
	}
	if err := r.experts(); err != nil {
		return err
	}
	if err := r.merge(); err != nil {
		return err
	}
	err := r.c.Check()
	if err != nil && r.opt.Partial {
		r.c.Warnf("%v", err)
		return nil
	}
	return err
}

func (r *reader) file(name string) string { return path.Join(r.c.Folder, name) }

// optimizers reads all optimizer files, one rank of model parallelism after
// the other.
func (r *reader) optimizers() error {
	t := &r.c.Topology
	byMP := map[int][]rankFile{}
	for _, f := range r.files.optim {
		byMP[f.a] = append(byMP[f.a], f)
	}
	if len(byMP) == 0 {
		return r.noOptimizer()
	}
	for _, rk := range r.ranks {
		files := byMP[rk.mp]
		if err := r.complete(rk.mp, files); err != nil {
			return err
		}
		if len(files) == 0 {
			continue
		}
		if r.opt.WeightsOnly && t.Zero < 3 && len(rk.groups) > 0 {
			if err := r.layoutOnly(rk); err != nil {
				return err
			}
			continue
		}
		if err := r.rankOptimizer(rk, files); err != nil {
			return err
		}
	}
	return nil
}

// complete checks that no data-parallel rank is missing or double.
func (r *reader) complete(mp int, files []rankFile) error {
	dp := r.c.Topology.DP
	have := map[int]string{}
	for _, f := range files {
		if other, twice := have[f.b]; twice {
			return bad(r.c.Folder, "%s and %s are both data-parallel rank %d of model-parallel rank %d", other, f.name, f.b, mp)
		}
		have[f.b] = f.name
	}
	var missing []string
	for d := range dp {
		if have[d] == "" {
			missing = append(missing, optimName(r.files.bf16, d, mp))
		}
	}
	if len(missing) == 0 && len(have) > dp {
		return bad(r.c.Folder, "%d optimizer files of model-parallel rank %d for %d data-parallel ranks", len(have), mp, dp)
	}
	if len(missing) == 0 {
		return nil
	}
	err := bad(r.c.Folder, "%d rank files are missing: %s", len(missing), strings.Join(missing[:min(len(missing), 6)], ", "))
	if r.opt.Partial {
		r.c.Warnf("%v", err)
		return nil
	}
	return err
}

// layoutOnly enters the parameters of a rank without their states.
func (r *reader) layoutOnly(rk *rank) error {
	for _, g := range rk.groups {
		for i, name := range g.names {
			if _, err := rk.add(name, g.shapes[i], g.param); err != nil {
				return err
			}
		}
	}
	return nil
}

// noOptimizer handles ZeRO stage 0 and weights without optimizer files.
func (r *reader) noOptimizer() error {
	r.c.Topology.Zero = 0
	for _, rk := range r.ranks {
		if err := r.layoutOnly(rk); err != nil {
			return err
		}
	}
	return r.stage0()
}

func (rk *rank) add(name string, shape []int64, group int) (*local, error) {
	if p := rk.params[name]; p != nil {
		if !slices.Equal(p.shape, shape) {
			return nil, fmt.Errorf("parameter %s has shapes %v and %v", name, p.shape, shape)
		}
		return p, nil
	}
	p := &local{name: name, shape: shape, group: group}
	rk.params[name] = p
	rk.order = append(rk.order, name)
	return p, nil
}

var errNotDict = errors.New("file does not hold a dict")

func (r *reader) openDict(name string) (*torch.Dict, error) {
	v, err := r.book.Open(r.file(name))
	if err != nil {
		return nil, err
	}
	d, ok := v.(*torch.Dict)
	if !ok {
		return nil, bad(r.file(name), "%w", errNotDict)
	}
	return d, nil
}
