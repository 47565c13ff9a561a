package cpu_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/compiler"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/core"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// moving is an op that does little more than move memory: from inputs of the
// given shapes.
type moving struct {
	name   string
	shapes [][]int
	op     func(b *core.Builder, x []*ir.Value) *ir.Value
}

// spec is the geometry of a window of a side, a stride and a padding.
func spec(stride, pad int) core.ConvSpec {
	return core.ConvSpec{Strides: []int{stride, stride}, Dilations: []int{1, 1}, Lo: []int{pad, pad}, Hi: []int{pad, pad}, Groups: 1}
}

func softmaxLast(b *core.Builder, x *ir.Value) *ir.Value {
	e := b.Exp(b.Sub(x, b.Reduce("reduce_max", x, true, x.Rank()-1)))
	return b.Div(e, b.Reduce("reduce_sum", e, true, x.Rank()-1))
}

func layerNorm(b *core.Builder, x *ir.Value) *ir.Value {
	s := core.Shape(x)
	n := b.Like(x, 1/float64(s[len(s)-1]))
	d := b.Sub(x, b.Mul(b.Reduce("reduce_sum", x, true, len(s)-1), n))
	v := b.Mul(b.Reduce("reduce_sum", b.Mul(d, d), true, len(s)-1), n)
	return b.Div(d, b.Sqrt(b.Add(v, b.Like(x, 1e-5))))
}

// up doubles the planes of an image.
func up(b *core.Builder, x *ir.Value) *ir.Value {
	s := core.Shape(x)
	y := b.BroadcastTo(b.Reshape(x, s[0], s[1], s[2], 1, s[3], 1), s[0], s[1], s[2], 2, s[3], 2)
	return b.Reshape(y, s[0], s[1], 2*s[2], 2*s[3])
}

var movings = []moving{
	{"add", [][]int{{1 << 20}, {1 << 20}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Add(x[0], x[1]) }},
	{"relu", [][]int{{1 << 20}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Relu(x[0]) }},
	{"bias-channels", [][]int{{1, 64, 128, 128}, {1, 64, 1, 1}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Add(x[0], x[1]) }},
	{"bias-last", [][]int{{1024, 1000}, {1000}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Add(x[0], x[1]) }},
	{"transpose-2d", [][]int{{1024, 1024}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Transpose(x[0], 1, 0) }},
	{"transpose-odd", [][]int{{1000, 777}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Transpose(x[0], 1, 0) }},
	{"nchw-to-nhwc", [][]int{{1, 64, 112, 112}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Transpose(x[0], 0, 2, 3, 1) }},
	{"nhwc-to-nchw-3", [][]int{{1, 512, 512, 3}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Transpose(x[0], 0, 3, 1, 2) }},
	{"heads", [][]int{{1, 512, 12, 64}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Transpose(x[0], 0, 2, 1, 3) }},
	{"channel-shuffle", [][]int{{1, 116, 28, 28}}, func(b *core.Builder, x []*ir.Value) *ir.Value {
		return b.Reshape(b.Transpose(b.Reshape(x[0], 1, 2, 58, 28, 28), 0, 2, 1, 3, 4), 1, 116, 28, 28)
	}},
	{"concat-channels", [][]int{{1, 32, 112, 112}, {1, 32, 112, 112}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Concat(1, x...) }},
	{"concat-last", [][]int{{4096, 96}, {4096, 32}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Concat(1, x...) }},
	{"slice", [][]int{{1, 64, 128, 128}}, func(b *core.Builder, x []*ir.Value) *ir.Value {
		return b.Slice(x[0], []int{0, 0, 8, 8}, []int{1, 64, 112, 112}, []int{1, 1, 1, 1})
	}},
	{"pad", [][]int{{1, 64, 112, 112}}, func(b *core.Builder, x []*ir.Value) *ir.Value {
		return b.Pad(x[0], []int{0, 0, 1, 1}, []int{0, 0, 1, 1}, b.Scalar(tensor.F32, 0))
	}},
	{"gather-rows", [][]int{{4096, 256}}, func(b *core.Builder, x []*ir.Value) *ir.Value {
		idx := tensor.New(tensor.I64, 4096)
		for i := range 4096 {
			idx.SetInt(i, int64(i*1031%4096))
		}
		return b.Gather(x[0], 0, b.Const(idx))
	}},
	{"resize-nearest", [][]int{{1, 64, 64, 64}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return up(b, x[0]) }},
	{"max-pool-2", [][]int{{1, 64, 112, 112}}, func(b *core.Builder, x []*ir.Value) *ir.Value {
		return b.Window("window_max", x[0], []int{2, 2}, spec(2, 0))
	}},
	{"max-pool-3s2", [][]int{{1, 64, 112, 112}}, func(b *core.Builder, x []*ir.Value) *ir.Value {
		return b.Window("window_max", x[0], []int{3, 3}, spec(2, 1))
	}},
	{"sum-pool-3s1", [][]int{{1, 64, 112, 112}}, func(b *core.Builder, x []*ir.Value) *ir.Value {
		return b.Window("window_sum", x[0], []int{3, 3}, spec(1, 1))
	}},
	{"global-pool", [][]int{{1, 1024, 28, 28}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Reduce("reduce_sum", x[0], true, 2, 3) }},
	{"sum-last", [][]int{{4096, 256}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Reduce("reduce_sum", x[0], true, 1) }},
	{"max-last", [][]int{{4096, 256}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Reduce("reduce_max", x[0], true, 1) }},
	{"sum-middle", [][]int{{16, 256, 256}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Reduce("reduce_sum", x[0], true, 1) }},
	{"sum-first", [][]int{{1024, 1024}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Reduce("reduce_sum", x[0], true, 0) }},
	{"max-first", [][]int{{1024, 1024}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return b.Reduce("reduce_max", x[0], true, 0) }},
	{"softmax", [][]int{{1536, 512}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return softmaxLast(b, x[0]) }},
	{"layer-norm", [][]int{{1024, 768}}, func(b *core.Builder, x []*ir.Value) *ir.Value { return layerNorm(b, x[0]) }},
	{"sub-row-maximum", [][]int{{4096, 256}}, func(b *core.Builder, x []*ir.Value) *ir.Value {
		return b.Sub(x[0], b.Reduce("reduce_max", x[0], true, 1))
	}},
}

// BenchmarkMoving times ops that are bound by memory, beside a copy of as many
// bytes in the same run: the shortest of many times each, in turns.
func BenchmarkMoving(b *testing.B) {
	tr, err := cpu.Target(*cpuName)
	if err != nil {
		b.Fatal(err)
	}
	cache := filepath.Join(os.TempDir(), "lathe-bench-cache")
	for _, m := range movings {
		b.Run(m.name, func(b *testing.B) {
			g := core.NewBuilder("bench")
			var x []*ir.Value
			var in []*tensor.Tensor
			for _, s := range m.shapes {
				x = append(x, g.Input("x"+string(rune('0'+len(x))), tensor.F32, s...))
				t := tensor.New(tensor.F32, s...)
				for i := range t.Len() {
					t.SetFloat(i, float64(i%31)/8)
				}
				in = append(in, t)
			}
			g.Output(m.op(g, x))
			p, err := compiler.Program(g.G, tr, compiler.Options{})
			if err != nil {
				b.Fatal(err)
			}
			dir := b.TempDir()
			if err := cpu.Build(context.Background(), p, dir, backend.Options{Name: "m", Traits: tr, Threads: 1, CacheDir: cache}); err != nil {
				b.Fatal(err)
			}
			s, err := cpu.Open(dir, 1)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			out := backend.NewOutputs(s)
			bytes := len(out[0].Bytes())
			for _, t := range in {
				bytes += len(t.Bytes())
			}
			from, to := make([]byte, bytes/2), make([]byte, bytes/2)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ours, copied := time.Hour, time.Hour
			for b.Loop() {
				start := time.Now()
				if err := s.Run(in, out); err != nil {
					b.Fatal(err)
				}
				ours = min(ours, time.Since(start))
				start = time.Now()
				copy(to, from)
				copied = min(copied, time.Since(start))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(bytes)/ours.Seconds()/1e9, "GB/s")
			b.ReportMetric(100*copied.Seconds()/ours.Seconds(), "%copy")
		})
	}
}
