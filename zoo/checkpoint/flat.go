package checkpoint

import (
	"path/filepath"
	"strings"

	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/dist"
	"github.com/lathe-ml/lathe/zoo/checkpoint/weightfile"
)

func openFile(s weights.Store, place, name string) (*atom.Checkpoint, error) {
	if strings.EqualFold(filepath.Ext(name), ".onnx") {
		return weightfile.OpenONNX(s, place)
	}
	return weightfile.Open(s, name)
}

// openSharded opens a folder of Hugging Face's.
func openSharded(s weights.Store) (*atom.Checkpoint, bool, error) {
	name := weightfile.Find(s)
	if name == "" {
		return nil, false, nil
	}
	c, err := weightfile.Open(s, name)
	return c, true, err
}

func openDCP(s weights.Store, dir string, _ OpenOptions) (*atom.Checkpoint, error) {
	return dist.Open(s, dir)
}
