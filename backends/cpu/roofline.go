package cpu

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/backends/dylib"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
)

//go:embed roofline/roofline.c
var rooflineSource []byte

// Bandwidth is how fast a working set of a size is read.
type Bandwidth struct {
	Bytes int     `json:"working_set_bytes"` // of each thread
	GBps  float64 `json:"gb_per_s"`          // of all threads
}

// Roofline is what a machine can do at most, measured: f32 multiply-adds from
// registers, and reads from each level of the memory hierarchy.
type Roofline struct {
	CPU       string        `json:"cpu"`
	Threads   int           `json:"threads"`
	Peak      float64       `json:"peak_gflops"`
	Bandwidth []Bandwidth   `json:"bandwidth"`
	Probe     time.Duration `json:"probe_ns"` // what tracing adds to a step
}

// workingSets are those of a thread. They lie within the usual sizes of L1, L2
// and L3 caches and beyond: the last is less for many threads, which share what
// memory there is.
func workingSets(threads int) []int {
	return []int{16 << 10, 256 << 10, 4 << 20, max(16<<20, 256<<20/threads)}
}

// Seconds is the least time for some work: the bandwidth is that of the
// smallest measured working set that holds the bytes.
func (r *Roofline) Seconds(flops, bytes int64) float64 {
	return max(float64(flops)/(1e9*r.Peak), float64(bytes)/(1e9*r.bandwidth(bytes)))
}

func (r *Roofline) bandwidth(bytes int64) float64 {
	for _, b := range r.Bandwidth {
		if bytes <= int64(b.Bytes)*int64(r.Threads) {
			return b.GBps
		}
	}
	return r.Bandwidth[len(r.Bandwidth)-1].GBps
}

// MeasureRoofline compiles a few loops for a CPU level, with the toolchain that
// artifacts are made with, and times them on a number of threads at once.
func MeasureRoofline(ctx context.Context, cpuName string, threads int, cache string) (*Roofline, error) {
	t, err := Target(cpuName)
	if err != nil {
		return nil, err
	}
	cc, err := toolchain.Find("")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lathe-roof-")
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot make a temporary folder: %w", err).Hint("set TMPDIR to a folder with space")
	}
	defer os.RemoveAll(dir)
	flags := append(append([]string{}, common...), t.Flags...)
	flags = append(flags, fmt.Sprintf("-DLANES=%d", t.Lanes))
	so := filepath.Join(dir, "roofline.so")
	if err := cc.Build(ctx, []backend.Source{{Name: "roofline.c", Text: rooflineSource}}, flags, nil, so, cache); err != nil {
		return nil, err
	}
	lib, err := dylib.Open(so)
	if err != nil {
		return nil, err
	}
	defer lib.Close()
	return measure(ctx, lib, t, max(threads, 1))
}

func measure(ctx context.Context, lib *dylib.Library, t backend.Traits, threads int) (*Roofline, error) {
	f := map[string]dylib.Func{}
	for _, n := range []string{"roof_fma", "roof_read", "roof_gap"} {
		var err error
		if f[n], err = lib.Lookup(n); err != nil {
			return nil, err
		}
	}
	r := &Roofline{CPU: t.CPU, Threads: threads, Probe: gap(f["roof_gap"])}
	const rounds = 200_000
	r.Peak = fastest(threads, t.Lanes, 0, func(_, in, out uintptr) float64 {
		f["roof_fma"].Call(in, out, rounds)
		return 24 * float64(t.Lanes) * rounds
	})
	for _, size := range workingSets(threads) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		times := max(1, 32<<20/size)
		rate := fastest(threads, t.Lanes, size, func(from, _, out uintptr) float64 {
			f["roof_read"].Call(from, out, uintptr(size/4), uintptr(times))
			return float64(size) * float64(times)
		})
		r.Bandwidth = append(r.Bandwidth, Bandwidth{size, rate})
	}
	return r, nil
}

// tries is how often each figure is measured: on a busy machine most are low.
const tries = 15

// fastest gives the best of several tries, in billions of what work counts per
// second, added over the threads that work at once. Each thread has size bytes
// of its own, two vectors of ones and room for sums.
func fastest(threads, lanes, size int, work func(data, ones, out uintptr) float64) float64 {
	rates := make([]float64, threads)
	var pins dylib.Pins
	defer pins.Release()
	var all sync.WaitGroup
	for i := range threads {
		buf := artifact.Aligned(max(size, 64))
		for j := range buf {
			buf[j] = 0 // a page that nobody wrote is not memory yet
		}
		ones, out := artifact.Aligned(8*lanes), artifact.Aligned(32*lanes)
		for j := range 2 * lanes {
			*(*float32)(unsafe.Pointer(&ones[4*j])) = 1
		}
		data, in, sums := pins.Bytes(buf), pins.Bytes(ones), pins.Bytes(out)
		all.Go(func() {
			for range tries {
				start := time.Now()
				n := work(data, in, sums)
				rates[i] = max(rates[i], n/float64(max(time.Since(start), 1)))
			}
		})
	}
	all.Wait()
	sum := 0.0
	for _, r := range rates {
		sum += r
	}
	return sum
}

// gap is the time that the trace shows for a step that does nothing.
func gap(f dylib.Func) time.Duration {
	probe.Lock()
	defer probe.Unlock()
	probe.best = []time.Duration{0}
	f.Call(uintptr(probeHook()), 1000)
	return probe.best[0]
}
