package cli

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/backends/artifact"
	"github.com/lathe-ml/lathe/backends/cpu"
)

func pageOf(t *testing.T, tr *trace, roof *cpu.Roofline) (string, *profileView) {
	t.Helper()
	r := benchResult{Model: "dir/model.onnx", Threads: 1, Latency: &latency{Runs: 3, Median: 1, P90: 2, P95: 3, P99: 4, Min: 0.5}, Profile: newProfile(tr, roof)}
	views := profileViews([]benchResult{r})
	var b bytes.Buffer
	if err := profilePage.Execute(&b, views); err != nil {
		t.Fatal(err)
	}
	return b.String(), views[0]
}

// By hand: 1e6 flops in 10 µs are 100 GFLOP/s, over 1e6 bytes 1 flop per byte.
// The axis of flops per byte is from 0.1 to 100 (the slowest memory meets the
// peak at 200/10·3 = 60), over the 960-64-24 units of the plot: 1 is a third
// along. GFLOP/s go from 1 (200/100 rounded down) to 400: 100 is
// log(100)/log(400) = 0.7686 up the 414 units. What has no flops is no dot.
func TestProfilePage(t *testing.T) {
	tr := &trace{man: &artifact.Manifest{CPU: "x", Steps: []artifact.Step{
		{Kernel: "k_1", Family: "conv", Values: "v", Node: `<script>alert("x")</script>`, Flops: 1e6, Bytes: 1e6},
		{Kernel: "k_2", Family: "copy", Values: "w", Bytes: 1000},
	}}, best: []time.Duration{10 * time.Microsecond, 2 * time.Microsecond}, runs: 5}
	roof := &cpu.Roofline{CPU: "x", Threads: 1, Peak: 200, Bandwidth: []cpu.Bandwidth{
		{Level: "L1", Bytes: 16 << 10, GBps: 400}, {Level: "L2", Bytes: 1 << 20, GBps: 200}, {Level: "L3", Bytes: 8 << 20, GBps: 100}, {Level: "DRAM", Bytes: 1 << 28, GBps: 10}}}
	page, v := pageOf(t, tr, roof)
	if len(v.Dots) != 1 || v.Missing != "1 step" {
		t.Fatalf("dots %+v, missing %q", v.Dots, v.Missing)
	}
	if d := v.Dots[0]; d.X != 354.7 || d.Y != 115.8 {
		t.Errorf("the dot is at %g, %g", d.X, d.Y)
	}
	for _, want := range []string{"L1: reads of 400 GB/s", "DRAM: reads of 10 GB/s", "200 GFLOP/s", "prefers-color-scheme:dark",
		"p95", "3.000 ms", `class="f0"`, "&lt;script&gt;", "width:100.00%"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if bad := regexp.MustCompile(`(?i)https?:|src=|@import|url\(|<script`).FindString(page); bad != "" {
		t.Errorf("the page holds %q: it must not need anything else, nor run anything", bad)
	}
}

// Without a roofline there are bars and no plot.
func TestProfilePageWithoutRoofline(t *testing.T) {
	tr := &trace{man: &artifact.Manifest{CPU: "x", Steps: []artifact.Step{{Kernel: "k", Family: "conv", Flops: 1, Bytes: 1}}}, best: []time.Duration{time.Microsecond}, runs: 1}
	page, _ := pageOf(t, tr, nil)
	if strings.Contains(page, "<svg") || !strings.Contains(page, `class="bar"`) {
		t.Errorf("%s", page)
	}
}
