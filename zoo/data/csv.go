package data

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// ReadCSV reads rows of numbers as one float32 tensor [rows,columns]. A first
// row that is no number anywhere is a header and left out.
func ReadCSV(b []byte) (*tensor.Tensor, error) {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))))
	r.TrimLeadingSpace = true
	r.ReuseRecord = true
	var v []float32
	rows, cols := 0, 0
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		start := len(v)
		for i, cell := range rec {
			x, err := strconv.ParseFloat(strings.TrimSpace(cell), 32)
			if err != nil && rows == 0 && i == 0 && len(v) == 0 {
				break
			}
			if err != nil {
				line, _ := r.FieldPos(i)
				return nil, fmt.Errorf("line %d, column %d: %q is not a number", line, i+1, cell)
			}
			v = append(v, float32(x))
		}
		if len(v) > start {
			rows, cols = rows+1, len(rec)
		}
	}
	if rows == 0 {
		return nil, errors.New("there is no row of numbers")
	}
	return tensor.Of(v, rows, cols), nil
}
