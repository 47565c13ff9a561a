package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// NewPlan lays out a file: slot i is tensors[i], of which Name, DType and Shape
// are used. In the file the tensors are sorted by element type and name, and
// the header is written, as the reference implementation does. metadata may be
// nil; Hugging Face's loaders expect {"format": "pt"}.
func NewPlan(tensors []weights.Tensor, metadata map[string]string) (*weights.Plan, error) {
	order := make([]int, len(tensors))
	seen := make(map[string]bool, len(tensors))
	for i, t := range tensors {
		order[i] = i
		switch {
		case seen[t.Name]:
			return nil, fmt.Errorf("tensor %q is there twice", t.Name)
		case t.Name == metadataKey || !utf8.ValidString(t.Name):
			return nil, fmt.Errorf("%q cannot be the name of a tensor in safetensors", t.Name)
		case rank(t.DType) < 0:
			return nil, fmt.Errorf("tensor %q: safetensors has no element type %s", t.Name, t.DType)
		}
		if err := checkShape(t.Shape); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		seen[t.Name] = true
	}
	slices.SortFunc(order, func(a, b int) int {
		if x := rank(tensors[b].DType) - rank(tensors[a].DType); x != 0 {
			return x
		}
		return strings.Compare(tensors[a].Name, tensors[b].Name)
	})
	p := &weights.Plan{Slots: make([]weights.Slot, len(tensors))}
	head, size, err := header(tensors, order, metadata)
	if err != nil {
		return nil, err
	}
	pos := int64(len(head))
	for _, i := range order {
		n := tensors[i].Bytes()
		p.Slots[i] = weights.Slot{Name: tensors[i].Name, Offset: pos, Bytes: n}
		pos += n
	}
	p.Size = int64(len(head)) + size
	p.Parts = func([]uint32) ([]weights.Part, error) { return []weights.Part{{Data: head}}, nil }
	return p, nil
}

// header is the length and the JSON, padded with spaces to eight bytes, and the
// number of bytes that the tensors take.
func header(tensors []weights.Tensor, order []int, metadata map[string]string) ([]byte, int64, error) {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	b.WriteByte('{')
	if len(metadata) > 0 {
		b.WriteString(`"` + metadataKey + `":`)
		if err := writeJSON(&b, metadata); err != nil {
			return nil, 0, err
		}
	}
	pos := int64(0)
	for _, i := range order {
		t := tensors[i]
		if b.Len() > 9 {
			b.WriteByte(',')
		}
		if err := writeJSON(&b, t.Name); err != nil {
			return nil, 0, err
		}
		fmt.Fprintf(&b, `:{"dtype":"%s","shape":[`, DTypeName(t.DType))
		for k, d := range t.Shape {
			if k > 0 {
				b.WriteByte(',')
			}
			fmt.Fprint(&b, d)
		}
		fmt.Fprintf(&b, `],"data_offsets":[%d,%d]}`, pos, pos+t.Bytes())
		pos += t.Bytes()
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	n := b.Len() - 8
	if n > maxHeader {
		return nil, 0, fmt.Errorf("the header would have %d bytes, more than the %d that readers accept; split the tensors over more files", n, maxHeader)
	}
	binary.LittleEndian.PutUint64(b.Bytes(), uint64(n))
	return b.Bytes(), pos, nil
}

// writeJSON writes a value without the escapes for HTML that Go adds.
func writeJSON(b *bytes.Buffer, v any) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the newline
	return nil
}
