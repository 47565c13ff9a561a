package cli

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/cmd/internal/ui"
	"github.com/lathe-ml/lathe/compiler/precision"
)

// narrowed are models in which each precision below f32 has work to do.
var narrowed = map[precision.Mode][]string{
	precision.F16: {"mlperf-ad-autoencoder-fp32", "go1-policy", "silero-vad-v5-16k"},
	precision.BF16: {"mlperf-kws-dscnn-fp32", "mlperf-resnet8-fp32", "mlperf-ad-autoencoder-fp32", "mobilenetv1-0.25-128-fp32",
		"mobilenetv2-fp32", "silero-vad-v5-16k", "stories260k-fp32", "mnist-8", "speech-commands-squeezenet", "blazeface-front"},
}

// TestLayersOfModels holds that every layer of shared models is within the
// bound of the precisions whose outputs have none: what one layer may add is
// stated, what a network makes of it is not.
func TestLayersOfModels(t *testing.T) {
	shared := sharedDir(t)
	if shared == "" {
		t.Skip("no shared models")
	}
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	cache := t.TempDir()
	for _, m := range precision.Modes {
		for _, name := range narrowed[m.Mode] {
			t.Run(m.Mode.String()+"/"+name, func(t *testing.T) {
				var out, said bytes.Buffer
				code := Main([]string{"bench", filepath.Join(shared, "models", name, "model.onnx"), "--errors", "--precision", m.Mode.String(),
					"--fail-if", "excess>1", "--min-time", "1ms", "--min-runs", "1", "--cache-dir", cache}, ui.Piped(nil, &out, &said))
				switch {
				case code == 4: // the CPU has no such precision
					t.Skip(said.String())
				case code != 0:
					t.Errorf("exit code %d: %s%s", code, said.String(), out.String())
				}
			})
		}
	}
}
