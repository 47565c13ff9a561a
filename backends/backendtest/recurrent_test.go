package backendtest

import (
	"testing"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/interp"
	"github.com/lathe-ml/lathe/backends/portable"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/ir"
)

// TestRandomRecurrent compares the evaluator with every backend on recurrent
// nodes of all forms; natively with one thread and with two.
func TestRandomRecurrent(t *testing.T) {
	backends := []backend.Backend{interp.Backend(), backwards(), portable.Backend(), cpu.Backend()}
	_, noCC := toolchain.Find("")
	o := Options{CacheDir: t.TempDir()}
	for s := *seed; s < *seed+uint64(*graphs); s++ {
		r, err := RandomRecurrent(s)
		if err != nil {
			t.Errorf("seed %d: the generator made a wrong graph: %v", s, err)
			continue
		}
		o.Threads = 1 + int(s%2)
		for _, be := range backends {
			if *only != "" && be.Name != *only || be.Name == "cpu" && (noCC != nil || s >= *seed+uint64(*native)) {
				continue
			}
			if err := guarded(be, o, r); err != nil {
				t.Errorf("seed %d on %s: %v\n%s", s, be.Name, err, clip(ir.Print(r.Graph)))
			}
		}
	}
	if noCC != nil {
		t.Logf("the native backend was left out: %v", noCC)
	}
}
