package atom

import (
	"fmt"
	"io"
	"path"
	"slices"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// The states that have a name of their own. All others are the optimizer's.
const (
	FP32   = "fp32"   // the master weights of the optimizer
	Module = "module" // the weights of the model file, often in low precision
)

// Kind tells what a parameter is to the training.
type Kind uint8

// The kinds.
const (
	Trained Kind = iota
	Frozen
	Buffer
)

func (k Kind) String() string { return [...]string{"trained", "frozen", "buffer"}[k] }

// A State is one tensor of a parameter.
type State struct {
	Name string
	*Tensor
}

// A Param is a parameter or buffer of the model with all its states.
type Param struct {
	Name  string
	Shape []int64
	Kind  Kind
	// Group is the optimizer group; -1 for none.
	Group  int
	States []State
	// Step is the optimizer's step of this parameter: an int64, a float64 or a
	// scalar *torch.Tensor; nil if the source has none.
	Step torch.Value
	// Rule is how tensor parallelism cuts it.
	Rule spec.Match
	// Stages are the pipeline stages that hold it, ascending.
	Stages []int
	// Places are the layer files of a pipeline module that hold it.
	Places []Place
	// Aliases are further names of the same tensor (tied weights).
	Aliases []string
}

// State finds a state by name.
func (p *Param) State(name string) *Tensor {
	for _, s := range p.States {
		if s.Name == name {
			return s.Tensor
		}
	}
	return nil
}

// SetState adds or replaces a state.
func (p *Param) SetState(name string, t *Tensor) {
	for i := range p.States {
		if p.States[i].Name == name {
			p.States[i].Tensor = t
			return
		}
	}
	p.States = append(p.States, State{name, t})
}

// Weight is the best weights that the checkpoint has: the master weights, or
// those of the model file.
func (p *Param) Weight() *Tensor {
	if t := p.State(FP32); t != nil {
		return t
	}
	return p.State(Module)
}

// A ModelState is one model-states file that is carried along.
type ModelState struct {
	File string
	PP   int
	TP   int
	DP   int // only where every data-parallel rank has its own
	Root *torch.Dict
}

// A Checkpoint is everything that a source says.
type Checkpoint struct {
	Format   string // the name of the source layout: "deepspeed", "universal", …
	Version  string // of the program that wrote it, if known
	Store    weights.Store
	Folder   string // the tag folder inside the store; "." for none
	Name     string // of the checkpoint, where the folder does not tell
	Topology Topology
	Spec     *spec.Spec
	Params   []*Param // in the order of the model
	Blobs    []Blob
	// Groups are the optimizer's param_groups without their params lists.
	Groups []*torch.Dict
	// Optim is the optimizer_state_dict of the first rank without the large
	// tensors: loss scaler, clip_grad and the like.
	Optim *torch.Dict
	// Models are the model-states files by rank.
	Models []ModelState
	// ModuleType is the element type of the model's trained weights;
	// tensor.Invalid if unknown.
	ModuleType tensor.DType
	// Config is the DeepSpeed configuration, if recorded.
	Config *torch.Dict
	// Warnings tell what looks wrong but does not hinder the conversion.
	Warnings []string
	// Unknown lists classes outside the allow-list that were carried opaque.
	Unknown []string

	// Edited tells that parameters were left out or renamed, so that the
	// model-states files no longer fit.
	Edited bool
	// Book knows the storages of the torch files that were read.
	Book *Book

	closers []io.Closer
}

// Topology is the parallel layout.
type Topology struct {
	TP   int `json:"tp"`
	PP   int `json:"pp"`
	DP   int `json:"dp"`
	EP   int `json:"ep,omitempty"`
	Zero int `json:"zero"`
	// BF16 tells the BF16 optimizer and its file prefix.
	BF16 bool `json:"bf16,omitempty"`
	// Pipe tells a PipelineModule: weights in one file per layer.
	Pipe bool `json:"pipe,omitempty"`
}

// Warnf adds a warning.
func (c *Checkpoint) Warnf(format string, args ...any) {
	w := fmt.Sprintf(format, args...)
	if !slices.Contains(c.Warnings, w) {
		c.Warnings = append(c.Warnings, w)
	}
}

// Keep closes a reader together with the checkpoint.
func (c *Checkpoint) Keep(x io.Closer) { c.closers = append(c.closers, x) }

// Close releases open files.
func (c *Checkpoint) Close() error {
	var first error
	for _, x := range c.closers {
		if err := x.Close(); err != nil && first == nil {
			first = err
		}
	}
	c.closers = nil
	return first
}

// Param finds a parameter by its name or by an alias.
func (c *Checkpoint) Param(name string) *Param {
	for _, p := range c.Params {
		if p.Name == name {
			return p
		}
	}
	for _, p := range c.Params {
		if slices.Contains(p.Aliases, name) {
			return p
		}
	}
	return nil
}

// StateNames lists the optimizer states that occur, master weights first, the
// others in order of appearance.
func (c *Checkpoint) StateNames() []string {
	var names []string
	for _, p := range c.Params {
		for _, s := range p.States {
			if s.Name != Module && !slices.Contains(names, s.Name) {
				names = append(names, s.Name)
			}
		}
	}
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case a == FP32 && b != FP32:
			return -1
		case b == FP32 && a != FP32:
			return 1
		}
		return 0
	})
	return names
}

// Check verifies every tensor's pieces and the uniqueness of names.
func (c *Checkpoint) Check() error {
	seen := map[string]bool{}
	for _, p := range c.Params {
		for _, name := range append([]string{p.Name}, p.Aliases...) {
			if seen[name] {
				return fmt.Errorf("parameter %s occurs twice", name)
			}
			seen[name] = true
		}
		for _, s := range p.States {
			if err := s.Check(c.Blobs); err != nil {
				return fmt.Errorf("parameter %s, %s: %w", p.Name, s.Name, err)
			}
		}
	}
	return nil
}

// Tag is the name under which the checkpoint was saved.
func (c *Checkpoint) Tag() string {
	if c.Folder != "." && c.Folder != "" {
		return path.Base(c.Folder)
	}
	return c.Name
}
