package checkpoint

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/deepspeed"
	"github.com/lathe-ml/lathe/zoo/checkpoint/dist"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
	"github.com/lathe-ml/lathe/zoo/checkpoint/universal"
	"github.com/lathe-ml/lathe/zoo/checkpoint/weightfile"
)

// The target formats.
const (
	Universal   = "universal"
	DeepSpeed   = "deepspeed"
	DCP         = "dcp"
	Safetensors = "safetensors"
	Torch       = "torch"
)

// Formats lists the names of the target formats.
var Formats = []string{Universal, DeepSpeed, DCP, Safetensors, Torch}

// Target says what is written.
type Target struct {
	Format   string
	DType    tensor.DType // of weights, or of all states for universal
	MaxShard int64
	Dialect  universal.Dialect
	Tag      string
	DropTied bool
	Layout   deepspeed.Layout // for DeepSpeed
	// Note tells apart outputs that differ for other reasons (edits).
	Note string
	// File is set when the output is one file; else it is a folder.
	File string
}

// FormatOf guesses the target format from the name of an output.
func FormatOf(out string) string {
	switch strings.ToLower(filepath.Ext(out)) {
	case ".safetensors":
		return Safetensors
	case ".bin", ".pt", ".pth":
		return Torch
	}
	return ""
}

// ParseDType reads an element type for casting; "" keeps.
func ParseDType(name string) (tensor.DType, error) {
	if name == "" {
		return tensor.Invalid, nil
	}
	d, ok := parseDType(name)
	if !ok || !d.IsFloat() || d.Size() < 2 {
		return d, fault.New(fault.Usage, "element type %q cannot be cast to", name).Hint("use f32, bf16, f16 or f64")
	}
	return d, nil
}

func (t Target) plan(c *atom.Checkpoint) ([]engine.File, error) {
	switch t.Format {
	case Universal:
		return universal.Plan(c, universal.Options{Dialect: t.Dialect, DType: t.DType, Folder: t.Tag})
	case DeepSpeed:
		return deepspeed.Plan(c, t.Layout)
	case DCP:
		return dist.Plan(c, dist.Options{DType: t.DType, MaxFile: t.MaxShard})
	case Safetensors, Torch:
		return weightfile.Plan(c, weightfile.Options{
			DType: t.DType, Safetensors: t.Format == Safetensors, MaxShard: t.MaxShard, File: t.File, DropTied: t.DropTied,
		})
	}
	return nil, fault.New(fault.Usage, "unknown target format %q", t.Format).Hint("use one of: %s", strings.Join(Formats, ", "))
}

// single tells that the output is one file.
func (t Target) single() bool { return t.File != "" }

// describe names all options that change the output's bytes.
func (t Target) describe() string { return fmt.Sprintf("%+v", t) }

// uses tells whether a state is written.
func (t Target) uses(p *atom.Param, state string) bool {
	if t.Format == Safetensors || t.Format == Torch {
		return p.State(state) == p.Weight()
	}
	return true
}
