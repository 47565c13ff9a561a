package safetensors

import (
	"errors"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// NewPlan lays out a file: one slot per tensor (Name, DType, Shape are used),
// in the order of tensors. metadata may be nil; Hugging Face's loaders expect
// {"format": "pt"}.
func NewPlan(tensors []weights.Tensor, metadata map[string]string) (*weights.Plan, error) {
	return nil, errors.New("no tensors")
}
