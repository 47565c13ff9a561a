package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/zoo/checkpoint/deepspeed"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// python is an interpreter that has torch; the test is skipped without one.
func python(t testing.TB) string {
	t.Helper()
	for _, p := range []string{os.Getenv("LATHE_PYTHON"), "/usr/bin/python3", "python3"} {
		if p != "" && exec.Command(p, "-c", "import torch").Run() == nil {
			return p
		}
	}
	t.Skip("SKIPPED: no python3 with torch (Debian: apt-get install python3-torch): what torch.load reads is not checked")
	return ""
}

// torchNames are torch's names of element types.
var torchNames = map[tensor.DType]string{
	tensor.F32: "float32", tensor.BF16: "bfloat16", tensor.F16: "float16", tensor.F64: "float64",
	tensor.I64: "int64", tensor.I32: "int32", tensor.U8: "uint8", tensor.Bool: "bool",
}

// TestTorchLoadsWhatWeWrite converts every recorded case to the native and
// consolidated forms, and some to the universal one; torch.load reads each file and finds the same
// tensors as our own reader.
func TestTorchLoadsWhatWeWrite(t *testing.T) {
	py := python(t)
	root := casesDir(t)
	dir := t.TempDir()
	for i, name := range caseNames(t) {
		src := open(t, filepath.Join(root, name, "source"), OpenOptions{})
		if i%4 == 0 || name == "z1_tp2_dp2_mpu" || name == "z3_dp2_fp32" { // 120 small files each
			convert(t, src, filepath.Join(dir, name, "universal"), Target{Format: Universal})
		}
		convert(t, src, filepath.Join(dir, name, "native"), Target{Format: DeepSpeed, Layout: deepspeed.Layout{DP: src.Topology.DP * 2}})
		convert(t, src, filepath.Join(dir, name, "all.bin"), Target{Format: Torch, File: "all.bin"})
	}
	var files []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if e := filepath.Ext(p); err == nil && !d.IsDir() && (e == ".pt" || e == ".bin") {
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(py, filepath.Join("testdata", "load.py"))
	cmd.Stdin = strings.NewReader(strings.Join(files, "\n"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("torch.load: %v", err)
	}
	n := 0
	for line := range bytes.Lines(out) {
		var got struct {
			File    string
			Tensors [][]any
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		n++
		if a, b := fmt.Sprint(got.Tensors), fmt.Sprint(ourTensors(t, got.File)); a != b {
			t.Errorf("%s: torch reads\n%s\nwe read\n%s", got.File, a, b)
		}
	}
	if n != len(files) || n == 0 {
		t.Errorf("torch read %d of %d files", n, len(files))
	}
	t.Logf("torch.load read %d files", n)
}

func ourTensors(t *testing.T, file string) [][]any {
	t.Helper()
	list, err := torch.Tensors(readFile(t, file).Root)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]any
	for _, n := range list {
		x, err := n.Tensor.Load()
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(x.Bytes())
		out = append(out, []any{n.Path, torchNames[x.DType], x.Shape, hex.EncodeToString(sum[:])})
	}
	return out
}
