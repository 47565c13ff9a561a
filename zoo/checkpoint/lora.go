package checkpoint

import (
	"encoding/json"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
)

// adapterConfig is what counts of PEFT's adapter_config.json.
type adapterConfig struct {
	Type          string             `json:"peft_type"`
	Rank          float64            `json:"r"`
	Alpha         float64            `json:"lora_alpha"`
	RankStable    bool               `json:"use_rslora"`
	Transposed    bool               `json:"fan_in_fan_out"`
	DoRA          bool               `json:"use_dora"`
	Bias          string             `json:"bias"`
	AlphaPattern  map[string]float64 `json:"alpha_pattern"`
	ModulesToSave []string           `json:"modules_to_save"`
}

// MergeLoRA adds the low-rank update of a PEFT adapter folder to the weights
// of a checkpoint. The optimizer's states do not belong to the merged weights
// and are dropped. The adapter must stay open as long as the checkpoint is
// used; closing the checkpoint closes it.
func MergeLoRA(c *atom.Checkpoint, folder string) error {
	a, err := Open(folder, OpenOptions{})
	if err != nil {
		return err
	}
	c.Keep(a)
	cfg, err := readAdapter(a, folder)
	if err != nil {
		return err
	}
	pairs, err := adapterPairs(a, folder)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		p := c.Param(name)
		if p == nil {
			return fault.New(fault.BadModel, "the adapter changes %s, which the checkpoint does not have", name).InFile(folder)
		}
		if err := cfg.merge(a, p, pairs[name], name); err != nil {
			return err
		}
	}
	dropped := false
	for _, p := range c.Params {
		n := len(p.States)
		p.States = slices.DeleteFunc(p.States, func(s atom.State) bool { return s.Name != atom.FP32 && s.Name != atom.Module })
		dropped = dropped || len(p.States) < n
		p.Step = nil
	}
	if dropped {
		c.Warnf("optimizer state is dropped: it does not belong to the merged weights")
	}
	return nil
}

func readAdapter(a *atom.Checkpoint, folder string) (*adapterConfig, error) {
	b, err := weights.ReadFile(a.Store, "adapter_config.json", 1<<20)
	if err != nil {
		return nil, fault.New(fault.BadModel, "adapter_config.json cannot be read: %w", err).InFile(folder)
	}
	cfg := &adapterConfig{}
	if err := json.Unmarshal(b, cfg); err != nil {
		return nil, fault.New(fault.BadModel, "adapter_config.json: %w", err).InFile(folder)
	}
	switch {
	case cfg.Type != "" && cfg.Type != "LORA":
		return nil, fault.New(fault.Unsupported, "adapters of type %s cannot be merged, only LORA", cfg.Type).InFile(folder)
	case cfg.DoRA:
		return nil, fault.New(fault.Unsupported, "DoRA adapters cannot be merged").InFile(folder)
	case len(cfg.ModulesToSave) > 0:
		return nil, fault.New(fault.Unsupported, "adapters that replace whole modules (%s) cannot be merged", strings.Join(cfg.ModulesToSave, ", ")).InFile(folder)
	case cfg.Bias != "" && cfg.Bias != "none":
		return nil, fault.New(fault.Unsupported, "adapters with trained biases (%s) cannot be merged", cfg.Bias).InFile(folder)
	}
	return cfg, nil
}

// lowRank are the two factors of one update.
type lowRank struct{ a, b *atom.Tensor }

var reFactor = regexp.MustCompile(`^(?:base_model\.model\.)?(.*)\.lora_([AB])(?:\.[^.]+)?\.weight$`)

// adapterPairs groups the factors by the parameter that they change.
func adapterPairs(a *atom.Checkpoint, folder string) (map[string]*lowRank, error) {
	out := map[string]*lowRank{}
	for _, p := range a.Params {
		m := reFactor.FindStringSubmatch(p.Name)
		if m == nil {
			return nil, fault.New(fault.Unsupported, "adapter tensor %s is no factor of a linear layer", p.Name).InFile(folder)
		}
		name := m[1] + ".weight"
		if out[name] == nil {
			out[name] = &lowRank{}
		}
		if m[2] == "A" {
			out[name].a = p.Weight()
		} else {
			out[name].b = p.Weight()
		}
	}
	for name, l := range out {
		if l.a == nil || l.b == nil || len(l.a.Shape) != 2 || len(l.b.Shape) != 2 || l.a.Shape[0] != l.b.Shape[1] {
			return nil, fault.New(fault.BadModel, "the factors of %s are incomplete or do not fit", name).InFile(folder)
		}
	}
	return out, nil
}

// merge gives the weights of a parameter their update.
func (cfg *adapterConfig) merge(a *atom.Checkpoint, p *atom.Param, l *lowRank, name string) error {
	rows, cols := l.b.Shape[0], l.a.Shape[1]
	if cfg.Transposed {
		rows, cols = cols, rows
	}
	if !slices.Equal(p.Shape, []int64{rows, cols}) {
		return fault.New(fault.BadModel, "the adapter changes %s with shape %v, the checkpoint has %v", name, []int64{rows, cols}, p.Shape)
	}
	r, alpha := float64(l.a.Shape[0]), cfg.Alpha
	module := strings.TrimSuffix(name, ".weight")
	for pattern, v := range cfg.AlphaPattern {
		if module == pattern || strings.HasSuffix(module, "."+pattern) {
			alpha = v
		}
	}
	scale := alpha / r
	if cfg.RankStable {
		scale = alpha / math.Sqrt(r)
	}
	for i, s := range p.States {
		if s.Name != atom.FP32 && s.Name != atom.Module {
			continue
		}
		if !s.DType.IsFloat() {
			return fault.New(fault.Unsupported, "%s has element type %s, to which nothing can be added", name, s.DType)
		}
		t := *s.Tensor
		t.Delta = func() (*atom.Delta, error) {
			fa, err := loadFloat(a, l.a)
			if err != nil {
				return nil, err
			}
			fb, err := loadFloat(a, l.b)
			if err != nil {
				return nil, err
			}
			return &atom.Delta{A: fa, B: fb, Rank: int(r), Cols: l.a.Shape[1], Rows: l.b.Shape[0], Scale: scale, Transposed: cfg.Transposed}, nil
		}
		t.DeltaName = path.Base(a.Tag()) + ":" + name
		p.States[i].Tensor = &t
	}
	return nil
}

// loadFloat reads a factor as float32.
func loadFloat(c *atom.Checkpoint, t *atom.Tensor) ([]float32, error) {
	b, err := engine.Load(c, t)
	if err != nil {
		return nil, err
	}
	x := tensor.New(t.DType, int(t.Numel()))
	copy(x.Bytes(), b)
	return slices.Clone(tensor.As[float32](tensor.Convert(x, tensor.F32))), nil
}
