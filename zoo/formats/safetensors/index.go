package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// The names of an index beside its shards.
const (
	IndexName    = "model.safetensors.index.json"
	IndexNameBin = "pytorch_model.bin.index.json"
)

// Index is the index of a checkpoint in several files: which file holds which
// tensor.
type Index struct {
	Metadata  map[string]any
	WeightMap map[string]string
}

// maxIndex bounds the size of an index file.
const maxIndex = 256 << 20

// ParseIndex reads an index file. File names that leave the folder are refused.
func ParseIndex(data []byte) (*Index, error) {
	if len(data) > maxIndex {
		return nil, fmt.Errorf("an index of %d bytes is too large", len(data))
	}
	x := &Index{WeightMap: map[string]string{}}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	found := false
	err := object(d, func(key string) error {
		switch key {
		case "metadata":
			return d.Decode(&x.Metadata)
		case "weight_map":
			found = true
			return object(d, func(name string) error {
				var file string
				if err := d.Decode(&file); err != nil {
					return fmt.Errorf("the file of tensor %q is not a string", name)
				}
				if _, ok := x.WeightMap[name]; ok {
					return fmt.Errorf("the index holds tensor %q twice", name)
				}
				x.WeightMap[name] = file
				return weights.CheckName(file)
			})
		}
		var skip any
		return d.Decode(&skip)
	})
	switch {
	case err != nil:
		return nil, headerError(err)
	case !found:
		return nil, errors.New("the index has no weight_map")
	}
	return x, nil
}

// Files is the sorted list of files.
func (x *Index) Files() []string {
	out := slices.Collect(maps.Values(x.WeightMap))
	slices.Sort(out)
	return slices.Compact(out)
}

// Marshal is the index as JSON, names sorted, as Hugging Face writes it.
func (x *Index) Marshal() ([]byte, error) {
	meta := x.Metadata
	if meta == nil {
		meta = map[string]any{}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(struct {
		Metadata  map[string]any    `json:"metadata"`
		WeightMap map[string]string `json:"weight_map"`
	}{meta, x.WeightMap})
	return b.Bytes(), err
}

// Shard is one file of a sharded checkpoint.
type Shard struct {
	File    string
	Tensors []weights.Tensor
	Bytes   int64
}

// Split divides tensors into files of at most maxBytes, in order, as Hugging
// Face does; a larger tensor gets a file of its own. base and ext make the
// names: base-00001-of-000NN.ext, or base.ext when one file suffices, and then
// the index is nil.
func Split(tensors []weights.Tensor, maxBytes int64, base, ext string) ([]Shard, *Index, error) {
	if maxBytes <= 0 {
		return nil, nil, fmt.Errorf("a shard limit of %d bytes holds nothing", maxBytes)
	}
	var shards []Shard
	var cur Shard
	total := int64(0)
	flush := func() {
		if len(cur.Tensors) > 0 {
			shards = append(shards, cur)
		}
		cur = Shard{}
	}
	for _, t := range tensors {
		n := t.Bytes()
		total += n
		if n > maxBytes {
			shards = append(shards, Shard{Tensors: []weights.Tensor{t}, Bytes: n})
			continue
		}
		if cur.Bytes+n > maxBytes {
			flush()
		}
		cur.Tensors = append(cur.Tensors, t)
		cur.Bytes += n
	}
	flush()
	if len(shards) <= 1 {
		if len(shards) == 0 {
			shards = []Shard{{}}
		}
		shards[0].File = base + "." + ext
		return shards, nil, nil
	}
	x := &Index{Metadata: map[string]any{"total_size": total}, WeightMap: map[string]string{}}
	for i := range shards {
		shards[i].File = fmt.Sprintf("%s-%05d-of-%05d.%s", base, i+1, len(shards), ext)
		for _, t := range shards[i].Tensors {
			if _, ok := x.WeightMap[t.Name]; ok {
				return nil, nil, fmt.Errorf("tensor %q is there twice", t.Name)
			}
			x.WeightMap[t.Name] = shards[i].File
		}
	}
	return shards, x, nil
}
