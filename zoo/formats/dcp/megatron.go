package dcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// Megatron is a Megatron-Core checkpoint folder: a distributed checkpoint and
// the state that is the same on all ranks.
type Megatron struct {
	Backend        string // "torch_dist" or "fsdp_dtensor"
	BackendVersion int
	*Checkpoint
	// Common is common.pt; nil where newer versions keep it in the checkpoint.
	Common *torch.File
}

// megatronMetadata is metadata.json.
type megatronMetadata struct {
	Backend string `json:"sharded_backend"`
	Version int    `json:"sharded_backend_version"`
}

// MegatronMetadataName is the file that marks a Megatron-Core checkpoint.
const MegatronMetadataName = "metadata.json"

// OpenMegatron reads a Megatron-Core checkpoint folder (iter_0000100).
func OpenMegatron(s weights.Store, dir string) (*Megatron, error) {
	name := weights.Join(dir, MegatronMetadataName)
	raw, err := weights.ReadFile(s, name, 1<<20)
	if err != nil {
		return nil, err
	}
	var m megatronMetadata
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if m.Backend != "torch_dist" && m.Backend != "fsdp_dtensor" {
		return nil, fmt.Errorf("%s: the backend %q is not supported; torch_dist and fsdp_dtensor are", name, m.Backend)
	}
	out := &Megatron{Backend: m.Backend, BackendVersion: m.Version}
	if out.Checkpoint, err = OpenPartial(s, dir); err != nil {
		return nil, err
	}
	out.Common, err = torch.Load(s, weights.Join(dir, "common.pt"), torch.Options{})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return out, err
}
