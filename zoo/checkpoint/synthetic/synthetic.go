// Package synthetic makes checkpoints of any size for tests and measurements:
// GPT-shaped models with random or zero data, written by lathe's own targets.
//
// It must not know commands. Its data are a function of the seed and the place,
// so that nothing large is held in memory.
package synthetic

import (
	"encoding/binary"
	"fmt"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/deepspeed"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Model is the shape of a GPT.
type Model struct {
	Layers, Hidden, FFN, Vocab, Positions int64
	// Pipe names parameters as a pipeline module does.
	Pipe bool
	// Module is the element type of the model's weights.
	Module tensor.DType
	// Groups puts biases and norms into a second optimizer group.
	Groups int
	Seed   uint64
}

// GPT2 is GPT-2 small: 124,439,808 parameters.
var GPT2 = Model{Layers: 12, Hidden: 768, FFN: 3072, Vocab: 50257, Positions: 1024, Module: tensor.BF16, Groups: 1, Seed: 1}

// noise is an endless source of bytes, a function of the place.
type noise struct{ seed uint64 }

// ReadAt gives float32 values between 1 and 2: their exponent is fixed, so that
// no value is special.
func (n noise) ReadAt(b []byte, off int64) (int, error) {
	var word [8]byte
	for i := 0; i < len(b); {
		at := uint64(off + int64(i))
		x := n.seed ^ (at>>3)*0x9e3779b97f4a7c15
		x ^= x >> 30
		x *= 0xbf58476d1ce4e5b9
		x ^= x >> 27
		binary.LittleEndian.PutUint64(word[:], x&0x007fffff007fffff|0x3f8000003f800000)
		i += copy(b[i:], word[at&7:])
	}
	return len(b), nil
}

// New makes the checkpoint in memory. It has master weights, two moments, a
// step and the model's own weights.
func New(m Model, rules *spec.Spec) (*atom.Checkpoint, error) {
	if rules == nil {
		rules = Rules(m)
	}
	if err := rules.Compile(); err != nil {
		return nil, err
	}
	c := &atom.Checkpoint{
		Format: "synthetic", Version: "0.14.5", Folder: "global_step10", Spec: rules, ModuleType: m.Module,
		Topology: atom.Topology{TP: 1, PP: 1, DP: 1, Zero: 1, BF16: m.Module == tensor.BF16, Pipe: m.Pipe},
	}
	atom.NewBook(c)
	for g := range max(m.Groups, 1) {
		c.Groups = append(c.Groups, torch.NewDict("lr", 1e-3, "betas", torch.NewList(0.9, 0.95), "eps", 1e-8, "weight_decay", float64(1-g)*0.01))
	}
	c.Optim = torch.NewDict("loss_scaler", torch.NewObject("deepspeed.runtime.fp16.loss_scaler", "LossScaler",
		torch.NewDict("cur_scale", 1.0, "dynamic", false)), "dynamic_loss_scale", false, "overflow", false, "clip_grad", 1.0,
		"zero_stage", int64(1))
	names, shapes := m.params()
	for i, name := range names {
		if err := add(c, m, name, shapes[i]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func add(c *atom.Checkpoint, m Model, name string, shape []int64) error {
	rule, err := c.Spec.Match(name)
	if err != nil {
		return err
	}
	p := &atom.Param{Name: name, Shape: shape, Stages: []int{0}, Rule: rule, Step: int64(10)}
	if m.Groups > 1 && len(shape) == 1 {
		p.Group = 1
	}
	for k, state := range []string{atom.FP32, "exp_avg", "exp_avg_sq", atom.Module} {
		d := tensor.F32
		if state == atom.Module {
			d = m.Module
		}
		p.SetState(state, Random(c, shape, d, m.Seed*1_000_003+uint64(len(c.Params)*4+k)))
	}
	c.Params = append(c.Params, p)
	return nil
}

// Random makes a tensor of random data.
func Random(c *atom.Checkpoint, shape []int64, d tensor.DType, seed uint64) *atom.Tensor {
	n := geometry.Numel(shape)
	c.Blobs = append(c.Blobs, atom.Blob{File: fmt.Sprintf("random %d", seed), Offset: -1, Bytes: n * int64(d.Size()), Data: noise{seed * 0x9e3779b97f4a7c15}})
	return &atom.Tensor{DType: d, Shape: shape, Pieces: []atom.Piece{{
		View: geometry.Whole(shape), Frags: []atom.Frag{{Len: n, Blob: int32(len(c.Blobs) - 1)}},
	}}}
}

// params lists names and shapes in Megatron's layout.
func (m Model) params() (names []string, shapes [][]int64) {
	add := func(name string, shape ...int64) { names, shapes = append(names, name), append(shapes, shape) }
	embed, layer, final := "embedding.", "layers.%d.", "final_layernorm."
	first := int64(0)
	if m.Pipe {
		embed, layer, first = "tied_modules.embed.", "%d.", 1
		final = fmt.Sprintf("%d.", m.Layers+1)
	}
	h := m.Hidden
	add(embed+"word_embeddings.weight", m.Vocab, h)
	add(embed+"position_embeddings.weight", m.Positions, h)
	for l := range m.Layers {
		p := fmt.Sprintf(layer, l+first)
		add(p+"input_layernorm.weight", h)
		add(p+"input_layernorm.bias", h)
		add(p+"self_attention.query_key_value.weight", 3*h, h)
		add(p+"self_attention.query_key_value.bias", 3*h)
		add(p+"self_attention.dense.weight", h, h)
		add(p+"self_attention.dense.bias", h)
		add(p+"post_attention_layernorm.weight", h)
		add(p+"post_attention_layernorm.bias", h)
		add(p+"mlp.dense_h_to_4h.weight", m.FFN, h)
		add(p+"mlp.dense_h_to_4h.bias", m.FFN)
		add(p+"mlp.dense_4h_to_h.weight", h, m.FFN)
		add(p+"mlp.dense_4h_to_h.bias", h)
	}
	add(final+"weight", h)
	add(final+"bias", h)
	return names, shapes
}

// Rules are Megatron's patterns for the model.
func Rules(m Model) *spec.Spec {
	embed, layer, final := `embedding\.`, `layers\.\d+\.`, `final_layernorm\.`
	if m.Pipe {
		embed, layer, final = `tied_modules\.embed\.`, `\d+\.`, `\d+\.`
	}
	s := &spec.Spec{Version: 0.2, OriginalVocab: m.Vocab, VocabDivisor: 128, Stated: true, Rules: []spec.Rule{
		{Kind: spec.Replicated, Patterns: []string{
			embed + `position_embeddings\.weight`, layer + `input_layernorm\.(weight|bias)`, layer + `post_attention_layernorm\.(weight|bias)`,
			layer + `self_attention\.dense\.bias`, layer + `mlp\.dense_4h_to_h\.bias`, final + `(weight|bias)`,
		}},
		{Kind: spec.Fragment, Dim: 1, Patterns: []string{layer + `self_attention\.dense\.weight`, layer + `mlp\.dense_4h_to_h\.weight`}},
		{Vocabulary: true, Patterns: []string{embed + `word_embeddings\.weight`}},
	}}
	if m.Pipe {
		s.Rules = append(s.Rules, spec.Rule{PipelineReplicated: true, Patterns: []string{embed + `(word|position)_embeddings\.weight`}})
	}
	return s
}

// WriteSparse writes the files of a native checkpoint of a model in a layout,
// all tensors zero, as holes: sizes that no disk needs to have.
func WriteSparse(out weights.Store, m Model, l deepspeed.Layout) error {
	c, err := New(m, nil)
	if err != nil {
		return err
	}
	files, err := deepspeed.Plan(c, l)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := writeSparse(out, f); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return nil
}

func writeSparse(out weights.Store, f engine.File) error {
	l, err := f.Build()
	if err != nil {
		return err
	}
	w, err := out.Create(f.Name, l.Plan.Size)
	if err != nil {
		return err
	}
	fill := l.Plan.Begin(w)
	for i, s := range l.Plan.Slots {
		if err := fill.Zero(i, 0, s.Bytes); err != nil {
			w.Close()
			return err
		}
	}
	if err := fill.Close(); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
