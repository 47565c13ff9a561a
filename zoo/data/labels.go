package data

import (
	"sort"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// ReadLabels reads class names, one per line; the line's number is the class.
func ReadLabels(path string) ([]string, error) {
	b, err := ReadBytes(path)
	if err != nil {
		return nil, err
	}
	text := strings.TrimRight(strings.TrimPrefix(string(b), "\ufeff"), "\r\n")
	if text == "" {
		return nil, fault.New(fault.BadModel, "the label file is empty").InFile(path)
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return lines, nil
}

// Score is one class of a prediction.
type Score struct {
	Class int     `json:"class"`
	Label string  `json:"label,omitempty"`
	Score float64 `json:"score"`
}

// Top gives the k highest scores of a row of classes, best first; of equal
// scores the lower class comes first.
func Top(row *tensor.Tensor, labels []string, k int) []Score {
	all := make([]Score, row.Len())
	for i := range all {
		all[i] = Score{Class: i, Score: row.Float(i)}
		if i < len(labels) {
			all[i].Label = labels[i]
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Score > all[j].Score })
	return all[:min(k, len(all))]
}
