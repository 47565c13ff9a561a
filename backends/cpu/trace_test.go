package cpu_test

import (
	"context"
	"testing"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/toolchain"
)

// The roofline must have an order that every machine has: a peak above zero,
// caches that are not slower than memory by more than the noise of a busy
// machine. A wider level is not slower than half of the narrowest.
func TestMeasureRoofline(t *testing.T) {
	if _, err := toolchain.Find(""); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	r, err := cpu.MeasureRoofline(context.Background(), "native", "", 1, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", *r)
	if r.Peak <= 0 || r.Probe <= 0 || len(r.Bandwidth) != 4 {
		t.Fatalf("%+v", *r)
	}
	first, last := r.Bandwidth[0], r.Bandwidth[len(r.Bandwidth)-1]
	if first.GBps < last.GBps/2 {
		t.Errorf("the smallest working set is read at %g GB/s, memory at %g", first.GBps, last.GBps)
	}
}

// By hand: 2e9 flops at 100 GFLOP/s take 20 ms, 1 GB at 10 GB/s takes 100 ms,
// 32 KiB fit into two threads' 16 KiB and are read at 50 GB/s.
func TestRooflineSeconds(t *testing.T) {
	r := cpu.Roofline{Threads: 2, Peak: 100, Bandwidth: []cpu.Bandwidth{{Bytes: 16 << 10, GBps: 50}, {Bytes: 1 << 20, GBps: 10}}}
	for _, c := range []struct {
		flops, bytes int64
		want         float64
	}{
		{2e9, 1000, 0.02}, {2e9, 1e9, 0.1}, {0, 32 << 10, 32768 / 50e9}, {0, 32<<10 + 1, 32769 / 10e9},
	} {
		if got := r.Seconds(c.flops, c.bytes); got != c.want {
			t.Errorf("%d flops, %d bytes: %g s, want %g", c.flops, c.bytes, got, c.want)
		}
	}
}
