package formats

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/gguf"
	"github.com/lathe-ml/lathe/zoo/formats/npz"
	"github.com/lathe-ml/lathe/zoo/formats/safetensors"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Format is a row of the table of weight files.
type Format struct {
	Name       string
	Extensions []string
	// Detect tells by the first bytes (HeadBytes of them) whether a file can
	// have the format. Zip files, which several formats are, need Extensions.
	Detect func(head []byte) bool
	// Tensors lists the tensors of a file without reading their data.
	Tensors func(s weights.Store, name string) ([]weights.Tensor, error)
}

// HeadBytes is how many bytes Detect wants to see.
const HeadBytes = 16

// All lists the formats; a file has the first that detects it, those that claim
// its extension going first.
var All = []Format{
	{"safetensors", []string{".safetensors"}, safetensors.Detect, safetensorsTensors},
	{"torch", []string{".pt", ".pth", ".bin", ".ckpt"}, torch.Detect, torchTensors},
	{"npz", []string{".npz", ".npy"}, npzDetect, npzTensors},
	{"gguf", []string{".gguf"}, gguf.Detect, ggufTensors},
}

func npzDetect(head []byte) bool {
	return npz.Detect(head) || strings.HasPrefix(string(head), "PK\x03\x04")
}

// Of tells which format a file has.
func Of(s weights.Store, name string) (*Format, error) {
	f, err := s.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, min(f.Size(), HeadBytes))
	if err := weights.ReadFull(f, head, 0); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	var found *Format
	for i := range All {
		x := &All[i]
		if !x.Detect(head) {
			continue
		}
		if slices.Contains(x.Extensions, path.Ext(name)) {
			return x, nil
		}
		if found == nil {
			found = x
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%s is no weight file that is known: it is not safetensors, torch, npz or GGUF", name)
	}
	return found, nil
}

// Tensors lists the tensors of a file of any format.
func Tensors(s weights.Store, name string) ([]weights.Tensor, error) {
	f, err := Of(s, name)
	if err != nil {
		return nil, err
	}
	return f.Tensors(s, name)
}

func safetensorsTensors(s weights.Store, name string) ([]weights.Tensor, error) {
	f, err := safetensors.OpenIn(s, name)
	if err != nil {
		return nil, err
	}
	return f.Tensors, nil
}

func torchTensors(s weights.Store, name string) ([]weights.Tensor, error) {
	f, err := torch.Load(s, name, torch.Options{})
	if err != nil {
		return nil, err
	}
	named, err := torch.Tensors(f.Root)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	out := make([]weights.Tensor, len(named))
	for i, n := range named {
		out[i] = n.Tensor.Ref(n.Path)
	}
	return out, nil
}

func npzTensors(s weights.Store, name string) ([]weights.Tensor, error) {
	f, err := npz.OpenIn(s, name)
	if err != nil {
		return nil, err
	}
	return f.Tensors, nil
}

func ggufTensors(s weights.Store, name string) ([]weights.Tensor, error) {
	f, err := gguf.OpenIn(s, name)
	if err != nil {
		return nil, err
	}
	out := make([]weights.Tensor, len(f.Tensors))
	for i := range f.Tensors {
		t, plain := f.Tensors[i].Plain()
		if !plain {
			return nil, fmt.Errorf("%s: tensor %q is quantised as %s, which only package gguf gives, as raw blocks", name, f.Tensors[i].Name, f.Tensors[i].Type)
		}
		out[i] = t
	}
	return out, nil
}
