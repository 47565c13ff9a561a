package onnxfile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// Reading and writing gives back the file, byte for byte.
func TestSharedModelsRoundTrip(t *testing.T) {
	for _, sub := range []string{"models", "onnx-backend-tests"} {
		files := sharedFiles(t, sub, ".onnx")
		for _, p := range files {
			want, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Read(p, Options{})
			if err != nil {
				t.Errorf("%v", err)
				continue
			}
			if err := ir.Verify(m.Graph); err != nil {
				t.Errorf("%s: %v", p, err)
			}
			got, err := m.Bytes()
			if err != nil {
				t.Errorf("%s: %v", p, err)
			} else if !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes in, %d out, the first difference at %d", p, len(want), len(got), firstDiff(got, want))
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
		t.Logf("%s: %d files", sub, len(files))
	}
}

func firstDiff(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// Every recorded value of the shared test data reads, and what is written from
// it reads back the same.
func TestSharedDataRoundTrip(t *testing.T) {
	n := 0
	for _, sub := range []string{"models", "onnx-backend-tests"} {
		for _, p := range sharedFiles(t, sub, "model.onnx") {
			m, err := Read(p, Options{})
			if err != nil {
				t.Fatal(err)
			}
			for stem, vals := range map[string][]*ir.Value{"input": m.FeedInputs(), "output": m.Graph.Outputs} {
				for i, v := range vals {
					f := filepath.Join(filepath.Dir(p), "test_data_set_0", fmt.Sprintf("%s_%d.pb", stem, i))
					if _, err := os.Stat(f); err != nil {
						continue
					}
					dataRoundTrip(t, f, v.Type)
					n++
				}
			}
		}
	}
	t.Logf("%d values", n)
}

func dataRoundTrip(t *testing.T, file string, typ ir.Type) {
	t.Helper()
	d, err := ReadTensorPB(file, typ)
	if err != nil {
		t.Error(err)
		return
	}
	b, err := EncodeData("x", d)
	if err != nil {
		t.Errorf("%s: %v", file, err)
		return
	}
	e, err := DecodeData(b, typ, Options{})
	if err != nil {
		t.Errorf("%s: written and read again: %v", file, err)
		return
	}
	if !sameData(d, e) {
		t.Errorf("%s: %s became %s", file, d, e)
	}
}

func sameData(a, b *ir.Data) bool {
	if a == nil || b == nil {
		return a == b
	}
	if a.Form != b.Form || len(a.Items) != len(b.Items) || (a.Tensor == nil) != (b.Tensor == nil) || (a.Keys == nil) != (b.Keys == nil) {
		return false
	}
	for i := range a.Items {
		if !sameData(a.Items[i], b.Items[i]) {
			return false
		}
	}
	return (a.Tensor == nil || tensor.Equal(a.Tensor, b.Tensor)) && (a.Keys == nil || tensor.Equal(a.Keys, b.Keys)) &&
		sameData(a.Some, b.Some)
}
