package cpu

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	Level string  `json:"level"`             // L1, L2, L3 or DRAM: the fastest memory that holds it
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

// workingSets are those of a thread, one per level. They lie within the caches
// that the system tells of, else within usual sizes, and beyond: the last is
// less for many threads, which share what memory there is.
func workingSets(caches []int, threads int) []Bandwidth {
	l1, l2, l3 := 32<<10, 512<<10, 8<<20
	if len(caches) == 3 {
		l1, l2, l3 = caches[0], caches[1], caches[2]
	}
	// Half a cache is left to whatever else the thread needs; of a shared L3
	// a thread has its part, and no more than what lies well beyond L2.
	return []Bandwidth{
		{Level: "L1", Bytes: l1 / 2},
		{Level: "L2", Bytes: max(l2/2, 2*l1)},
		{Level: "L3", Bytes: max(min(l3/2/threads, 8*l2), 2*l2)},
		{Level: "DRAM", Bytes: max(16<<20, min(8*l3, 256<<20)/threads)},
	}
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

// MeasureRoofline measures with loops that the C compiler makes for a CPU level,
// on a number of threads at once. compiler may be "": one is looked for.
func MeasureRoofline(ctx context.Context, cpuName, compiler string, threads int, cache string) (*Roofline, error) {
	p, err := OpenProbe(ctx, cpuName, compiler, cache)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	threads = max(threads, 1)
	r := &Roofline{CPU: p.traits.CPU, Threads: threads, Probe: p.Gap(), Peak: p.Peak(threads), Bandwidth: workingSets(dataCaches(), threads)}
	for i := range r.Bandwidth {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b := &r.Bandwidth[i]
		b.GBps = p.Read(threads, b.Bytes)
	}
	return r, nil
}

// Probe is a few loops for a CPU level, made with the toolchain and the flags
// that artifacts are made with, that show what the machine can do at most.
type Probe struct {
	lib    *dylib.Library
	traits backend.Traits
	f      map[string]dylib.Func
}

// OpenProbe compiles the loops.
func OpenProbe(ctx context.Context, cpuName, compiler, cache string) (*Probe, error) {
	t, err := Target(cpuName)
	if err != nil {
		return nil, err
	}
	cc, err := toolchain.Find(compiler)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lathe-roof-")
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot make a temporary folder: %w", err).Hint("set TMPDIR to a folder with space")
	}
	defer os.RemoveAll(dir)
	flags := append(slices.Clone(common), t.Flags...)
	flags = append(flags, fmt.Sprintf("-DLANES=%d", t.Lanes))
	so := filepath.Join(dir, "roofline.so")
	if err := cc.Build(ctx, []backend.Source{{Name: "roofline.c", Text: rooflineSource}}, flags, nil, so, cache); err != nil {
		return nil, err
	}
	p := &Probe{traits: t, f: map[string]dylib.Func{}}
	if p.lib, err = dylib.Open(so); err != nil {
		return nil, err
	}
	for _, n := range []string{"roof_fma", "roof_read", "roof_copy", "roof_gap"} {
		if p.f[n], err = p.lib.Lookup(n); err != nil {
			p.lib.Close()
			return nil, err
		}
	}
	return p, nil
}

// CPU is the level that the loops are made for.
func (p *Probe) CPU() string { return p.traits.CPU }

// Close frees the loops.
func (p *Probe) Close() error { return p.lib.Close() }

// Peak is the rate of f32 multiply-adds from registers in GFLOP/s.
func (p *Probe) Peak(threads int) float64 {
	const rounds = 200_000
	return p.fastest(threads, 0, func(_, in, out uintptr) float64 {
		p.f["roof_fma"].Call(in, out, rounds)
		return 24 * float64(p.traits.Lanes) * rounds
	})
}

// Read is how fast a working set of size bytes per thread is read, in GB/s.
func (p *Probe) Read(threads, size int) float64 {
	unit := 32 * p.traits.Lanes // the loop's step
	size = max(size/unit, 1) * unit
	times := max(1, 32<<20/size)
	return p.fastest(threads, size, func(from, _, out uintptr) float64 {
		p.f["roof_read"].Call(from, out, uintptr(size/4), uintptr(times))
		return float64(size) * float64(times)
	})
}

// Copy is the rate of the C library's memcpy in a working set of size bytes per
// thread, half of which is read and half written: GB/s of both together.
func (p *Probe) Copy(threads, size int) float64 {
	// Half a page lies between the halves: addresses that differ by whole pages
	// hold each other up.
	const apart = 2048
	half := max(size/2, 64)
	times := max(1, 16<<20/half)
	return p.fastest(threads, 2*half+apart, func(to, _, _ uintptr) float64 {
		p.f["roof_copy"].Call(to, to+uintptr(half+apart), uintptr(half), uintptr(times))
		return 2 * float64(half) * float64(times)
	})
}

// tries is how often each figure is measured: on a busy machine most are low.
const tries = 15

// fastest gives the best of several tries, in billions of what work counts per
// second, added over the threads that work at once. Each thread has size bytes
// of its own, two vectors of ones and room for sums.
func (p *Probe) fastest(threads, size int, work func(data, ones, out uintptr) float64) float64 {
	rates := make([]float64, threads)
	var pins dylib.Pins
	defer pins.Release()
	var all sync.WaitGroup
	for i := range threads {
		buf := artifact.Aligned(max(size, 64))
		for j := range buf {
			buf[j] = 0 // a page that nobody wrote is not memory yet
		}
		ones, out := artifact.Aligned(8*p.traits.Lanes), artifact.Aligned(32*p.traits.Lanes)
		for j := range 2 * p.traits.Lanes {
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

// Gap is the time that the trace shows for a step that does nothing.
func (p *Probe) Gap() time.Duration {
	probe.Lock()
	defer probe.Unlock()
	probe.best = []time.Duration{0}
	p.f["roof_gap"].Call(uintptr(probeHook()), 1000)
	return probe.best[0]
}
