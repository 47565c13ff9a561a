package cpu_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/backends/backendtest"
	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// matrixUnit is a CPU with a matrix unit whose instructions are emulated.
func matrixUnit(t *testing.T) backend.Traits {
	t.Helper()
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	here, err := cpu.Target("native")
	if err != nil || here.Lanes != 16 || here.Arch != "amd64" {
		t.Skip("this CPU has no AVX-512, which code for a matrix unit needs beside it")
	}
	traits, err := cpu.Target("native+amx-bf16+amx-emulated")
	if err != nil {
		t.Fatal(err)
	}
	return traits
}

// TestMatrixModels runs some networks with a matrix unit, floats and bytes, in
// two precisions; -cpu native+amx-bf16+amx-int8+amx-emulated runs all of them.
func TestMatrixModels(t *testing.T) {
	matrixUnit(t)
	dir := backendtest.Shared(t, "models")
	for _, m := range []precision.Mode{precision.F32, precision.Fast} {
		o := backendtest.Options{CPU: "native+amx-bf16+amx-int8+amx-emulated", Threads: 2, CacheDir: t.TempDir(), Lower: compiler.Options{Precision: m}}
		s := backendtest.Suite{Dir: dir, Filter: "mlperf-resnet8|mlperf-kws", Tolerance: backendtest.Model, Timeout: time.Minute}
		s.Test(t, cpu.Backend(), o)
	}
}

// TestMatrixBounds holds the bounds of precisions on contractions that a matrix
// unit computes, with the roundings and the zeros of its instructions.
func TestMatrixBounds(t *testing.T) {
	traits := matrixUnit(t)
	r := rand.New(rand.NewPCG(7, 2))
	b := core.NewBuilder("bounds")
	for i, c := range [][]int{{64, 32, 3, 13, 1}, {40, 24, 3, 9, 2}, {64, 48, 1, 10, 1}, {3, 32, 7, 21, 2}} {
		x := b.Input(fmt.Sprintf("x%d", i), tensor.F32, 1, c[0], c[3], c[3])
		b.Output(conv(b, x, weights(r, c[0]*c[2]*c[2], c[1], c[0], c[2], c[2]), c[4], 1))
	}
	for i, k := range []int{33, 4100} {
		x := b.Input(fmt.Sprintf("m%d", i), tensor.F32, 7, k)
		b.Output(b.MatMul(x, b.Const(weights(r, k, k, 24)), tensor.F32))
	}
	var modes []precision.Info
	for _, m := range precision.Modes {
		if m.Mode == precision.F32 || m.Mode == precision.Fast || m.Mode == precision.BF16 {
			modes = append(modes, m)
		}
	}
	for mode, forms := range bounds(t, b.G, traits, modes) {
		t.Logf("%s: largest errors by form %v", mode, forms)
		want := map[string]string{"f32": "amx6 winograd4-amx6", "f32-fast": "amx3", "bf16": "amx"}[mode]
		for _, f := range strings.Fields(want) {
			if _, ok := forms[f]; !ok {
				t.Errorf("%s: no contraction has the form %s", mode, f)
			}
		}
	}
}
