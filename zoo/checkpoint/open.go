package checkpoint

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/deepspeed"
	"github.com/lathe-ml/lathe/zoo/checkpoint/spec"
	"github.com/lathe-ml/lathe/zoo/checkpoint/universal"
)

// OpenOptions says how a source is read.
type OpenOptions struct {
	Spec *spec.Spec
	// Tag is the folder inside a DeepSpeed save folder; empty for the latest.
	Tag string
	// Partial accepts missing ranks and reports them as warnings.
	Partial bool
	// WeightsOnly leaves optimizer files unread where the model files suffice.
	WeightsOnly bool
}

// Open reads a checkpoint, whatever its format.
func Open(place string, o OpenOptions) (*atom.Checkpoint, error) {
	st, err := os.Stat(place)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.BadModel, "there is no such file or folder").InFile(place)
		}
		return nil, err
	}
	if !st.IsDir() {
		if place, err = filepath.EvalSymlinks(place); err != nil {
			return nil, err
		}
		s, err := weights.OpenOS(filepath.Dir(place))
		if err != nil {
			return nil, err
		}
		return keep(s, place)(openFile(s, place, filepath.Base(place)))
	}
	s, err := weights.OpenOS(place)
	if err != nil {
		return nil, err
	}
	return keep(s, place)(openFolder(s, place, o))
}

// keep closes the store with the checkpoint, or at once when there is none,
// and puts the place before the file names of messages.
func keep(s *weights.OS, place string) func(*atom.Checkpoint, error) (*atom.Checkpoint, error) {
	return func(c *atom.Checkpoint, err error) (*atom.Checkpoint, error) {
		if err != nil {
			s.Close()
			if f := fault.As(err); f != nil {
				if f.File == "" {
					f.File = place
				}
				return nil, err
			}
			f := fault.New(fault.BadModel, "%w", err).InFile(place)
			if strings.Contains(err.Error(), "escapes") {
				return nil, f.Hint("links that lead out of the folder are not followed (the cache of Hugging Face has such): copy it with cp -rL")
			}
			return nil, f
		}
		c.Keep(s)
		return c, nil
	}
}

func exists(s weights.Store, name string) bool {
	ok, err := weights.Exists(s, name)
	return ok && err == nil
}

// openFolder finds out what a folder holds.
func openFolder(s weights.Store, place string, o OpenOptions) (*atom.Checkpoint, error) {
	ds := deepspeed.Options{Spec: o.Spec, Partial: o.Partial, WeightsOnly: o.WeightsOnly}
	if o.Tag != "" {
		if universal.Is(s, o.Tag) {
			return universal.Open(s, o.Tag, o.Spec)
		}
		return deepspeed.Open(s, o.Tag, ds)
	}
	switch {
	case exists(s, ".metadata") || exists(s, "metadata.json"):
		return openDCP(s, ".", o)
	case universal.Is(s, "."):
		return openUniversal(s, place, o)
	case deepspeed.Is(s, "."):
		return openTag(s, place, ds)
	}
	for _, pointer := range []string{"latest", "latest_universal"} {
		if tag, ok := readPointer(s, pointer); ok {
			if universal.Is(s, tag) {
				return universal.Open(s, tag, o.Spec)
			}
			return deepspeed.Open(s, tag, ds)
		}
	}
	if iter, ok := readPointer(s, "latest_checkpointed_iteration.txt"); ok {
		if dir := iterFolder(s, iter); dir != "" {
			return openDCP(s, dir, o)
		}
	}
	if c, ok, err := openSharded(s); ok || err != nil {
		return c, err
	}
	return openOnlyFolder(s, place, o)
}

// openTag opens a tag folder that was given itself. Its name is the tag, so the
// folder above becomes the store.
func openTag(s weights.Store, place string, o deepspeed.Options) (*atom.Checkpoint, error) {
	c, err := deepspeed.Open(s, ".", o)
	if c != nil {
		c.Name = baseName(place)
	}
	return c, err
}

func openUniversal(s weights.Store, place string, o OpenOptions) (*atom.Checkpoint, error) {
	c, err := universal.Open(s, ".", o.Spec)
	if c != nil {
		c.Name = baseName(place)
	}
	return c, err
}

func baseName(place string) string {
	abs, err := filepath.Abs(place)
	if err != nil {
		return filepath.Base(place)
	}
	return filepath.Base(abs)
}

// readPointer reads a small text file that names a folder.
func readPointer(s weights.Store, name string) (string, bool) {
	if !exists(s, name) {
		return "", false
	}
	b, err := weights.ReadFile(s, name, 4096)
	tag := strings.TrimSpace(string(b))
	return tag, err == nil && tag != "" && weights.CheckName(tag) == nil
}

func iterFolder(s weights.Store, iter string) string {
	for _, d := range []string{"iter_" + strings.Repeat("0", max(7-len(iter), 0)) + iter, iter} {
		if i, err := s.Stat(d); err == nil && i.Dir {
			return d
		}
	}
	return ""
}

// openOnlyFolder opens a folder whose only checkpoint lies one level below.
func openOnlyFolder(s weights.Store, place string, o OpenOptions) (*atom.Checkpoint, error) {
	list, err := s.List(".")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range list {
		if !e.Dir {
			continue
		}
		if universal.Is(s, e.Name) || deepspeed.Is(s, e.Name) || exists(s, path.Join(e.Name, ".metadata")) {
			found = append(found, e.Name)
		}
	}
	switch {
	case len(found) > 1:
		return nil, fault.New(fault.Usage, "folder holds several checkpoints: %s", strings.Join(found, ", ")).
			InFile(place).Hint("choose one with --tag")
	case len(found) == 1 && exists(s, path.Join(found[0], ".metadata")):
		return openDCP(s, found[0], o)
	case len(found) == 1:
		o.Tag = found[0]
		return openFolder(s, place, o)
	}
	return nil, fault.New(fault.BadModel, "folder holds no checkpoint that is known").InFile(place).
		Hint("known are DeepSpeed (native and universal), Megatron-Core torch_dist, PyTorch DCP, Hugging Face shards, .pt, .safetensors, .npz and .onnx")
}
