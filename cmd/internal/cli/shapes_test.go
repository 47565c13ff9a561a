package cli

import (
	"fmt"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
)

func model(t *testing.T, text string) *onnxfile.Model {
	t.Helper()
	g, err := ir.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return onnxfile.New(g, 13)
}

// TestInputShapesSpellings: the spellings of trtexec, onnxsim, OpenVINO and
// tf2onnx mean the same.
func TestInputShapesSpellings(t *testing.T) {
	m := model(t, `onnx graph "g" {
  input %x: f32[?x?x?x?]
  input %"y:0": f32[?x?]
  %z: f32[?x?x?x?] = Add(%x, %"y:0")
  output %z
}`)
	want := "map[x:[1 3 4 5] y:0:[2 5]]"
	for _, flags := range [][]string{
		{"x:1x3x4x5", "y:0:2x5"},
		{"x:1x3x4x5,y:0:2x5"},
		{"x:1,3,4,5,y:0:2,5"},
		{"x[1,3,4,5],y:0[2,5]"},
		{"x=[1x3x4x5]", "y:0=2x5"},
		{" x:1x3x4x5 , y:0:2x5 "},
	} {
		s := shapeFlags{shapes: flags}
		o, err := s.options(m)
		if err != nil || fmt.Sprint(o.Shapes) != want {
			t.Errorf("%q: %v, %v", flags, o.Shapes, err)
		}
	}
	for _, bad := range []string{"x:1xax3", "w:1x2", "1x2", "x:-1x2", "x:x"} {
		s := shapeFlags{shapes: []string{bad}}
		if _, err := s.options(m); !fault.Is(err, fault.Usage) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestDims(t *testing.T) {
	m := model(t, `onnx graph "g" {
  input %x: f32[batchx?xseq]
  %z: f32[batchx?xseq] = Neg(%x)
  output %z
}`)
	s := shapeFlags{dims: []string{"batch=1,seq:8", "x:1=3"}}
	o, err := s.options(m)
	if err != nil || fmt.Sprint(o.Dims) != "map[batch:1 seq:8 x:1:3]" {
		t.Errorf("%v %v", o.Dims, err)
	}
	for bad, hint := range map[string]string{"bacth=1": `did you mean "batch"?`, "zzz=1": "it has: batch, seq, x:1", "batch": "write --dim batch=1", "batch=-1": ""} {
		s := shapeFlags{dims: []string{bad}}
		if _, err := s.options(m); !fault.Is(err, fault.Usage) || fault.HintOf(err) != hint {
			t.Errorf("%q: %v, hint %q", bad, err, fault.HintOf(err))
		}
	}
	bare := shapeFlags{shapes: []string{"2x3x4"}}
	if o, err := bare.options(m); err != nil || fmt.Sprint(o.Shapes) != "map[x:[2 3 4]]" {
		t.Errorf("bare shape: %v %v", o.Shapes, err)
	}
}

// By hand: 12 ms is 20 % over 10 ms, 30 ms is 50 % over 20 ms, and 0.8 is 20 %
// below 1.
func TestGates(t *testing.T) {
	ratio, one, start := 0.8, 1.0, 0.05
	base := benchResult{Latency: &latency{Median: 10, P99: 20}, Ratio: &one}
	r := []benchResult{{Model: "m", Latency: &latency{Median: 12, P95: 25, P99: 30}, Ratio: &ratio, before: &base,
		Footprint: &footprint{First: 3, Peak: 7}, StartRatio: &start}}
	offers := map[string]bool{"": true, "--peer": true, "--baseline": true, "--footprint": true, "--peer and --footprint": true}
	for text, met := range map[string]bool{
		"ratio<0.5": true, "ratio<0.9": false, "ratio > 0.7": false, "median>20ms": true, "median>11ms": false, "median>11000us": false,
		"p99>1s": true, "median>25%": true, "median>15%": false, "p50>11": false, "p95>26ms": true, "p99>45%": false, "p99>55%": true,
		"ratio<-10%": false, "ratio<-30%": true, "start_ratio>0.1": true, "start>2ms": false, "memory>8MiB": true, "memory>6": false,
		"memory_ratio>0.6": false,
	} {
		gates, err := parseGates([]string{text}, offers)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkGates(gates, r); (err == nil) != met || (err != nil && !fault.Is(err, fault.Gate)) {
			t.Errorf("%s: %v", text, err)
		}
		if err := checkGates(gates, []benchResult{{Model: "m", Error: "cannot"}}); !fault.Is(err, fault.Gate) {
			t.Errorf("%s: a model without figures meets the gate", text)
		}
	}
	for _, text := range []string{"ratio>2ms", "median>3MiB", "memory>3ms"} {
		if _, err := parseGates([]string{text}, offers); !fault.Is(err, fault.Usage) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"ratio>2", "median>3%", "memory>3", "start_ratio>1"} {
		if _, err := parseGates([]string{text}, map[string]bool{"": true}); !fault.Is(err, fault.Usage) {
			t.Errorf("%s without its flag: %v", text, err)
		}
	}
}

// By hand, nearest rank: of 10 figures half do not exceed the 5th, 90 % the
// 9th; of 200, 99 % do not exceed the 198th.
func TestRankOf(t *testing.T) {
	for _, c := range [][3]int{{50, 10, 4}, {90, 10, 8}, {95, 10, 9}, {99, 10, 9}, {50, 1, 0}, {50, 3, 1}, {99, 200, 197}, {95, 20, 18}} {
		if got := rankOf(c[0], c[1]); got != c[2] {
			t.Errorf("percentile %d of %d figures: place %d, want %d", c[0], c[1], got, c[2])
		}
	}
}
