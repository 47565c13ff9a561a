package tolerance

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
)

// network is a model of errors: each layer's own, amplified by a factor that the
// search does not know.
func network(layers [][]Option, factor []float64) Measure {
	return func(_ context.Context, pick []int) (float64, error) {
		sum := 0.0
		for i, p := range pick {
			sum += square(factor[i] * layers[i][p].Error)
		}
		return math.Sqrt(sum), nil
	}
}

var three = [][]Option{
	{{1e-3, 1}, {1e-5, 2}, {1e-7, 4}},
	{{1e-3, 10}, {1e-5, 20}, {1e-7, 40}},
	{{1e-3, 1}, {1e-5, 100}, {1e-7, 200}},
}

func TestSearch(t *testing.T) {
	for _, c := range []struct {
		name   string
		factor []float64
		budget float64
		want   []int
		met    bool
	}{
		{"all as fast as can be", []float64{1, 1, 1}, 1, []int{0, 0, 0}, true},
		// √3·1e-3 is beyond 1.5e-3, √2·1e-3 within, but not within 0.9 of it: the
		// two layers that save least go.
		{"the cheapest to make exact goes first", []float64{1, 1, 1}, 1.5e-3, []int{1, 1, 0}, true},
		{"a layer that saves much stays fast", []float64{1, 1, 1}, 1.2e-3, []int{1, 1, 0}, true},
		{"one step for all", []float64{1, 1, 1}, 5e-5, []int{1, 1, 1}, true},
		{"all as exact as can be", []float64{1, 1, 1}, 1e-8, []int{2, 2, 2}, false},
		{"amplified errors are seen by measuring", []float64{1, 1, 30}, 5e-4, []int{1, 1, 1}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := Search(t.Context(), three, nil, c.budget, network(three, c.factor))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(r.Pick, c.want) || r.Met != c.met {
				t.Errorf("%v (met: %v), want %v (%v)", r.Pick, r.Met, c.want, c.met)
			}
			if now, _ := network(three, c.factor)(t.Context(), r.Pick); now != r.Error {
				t.Errorf("error %g is not that of the pick, %g", r.Error, now)
			}
		})
	}
}

// TestSearchEnds holds that a search ends after few measurements, whatever is
// measured: the number of layers that go at once doubles.
func TestSearchEnds(t *testing.T) {
	var layers [][]Option
	for range 1000 {
		layers = append(layers, []Option{{1e-3, 1}, {1e-5, 2}, {1e-7, 3}})
	}
	for _, e := range []float64{1, math.Inf(1), math.NaN(), 0.0101} {
		r, err := Search(t.Context(), layers, nil, 0.01, func(context.Context, []int) (float64, error) { return e, nil })
		if err != nil || r.Met {
			t.Fatalf("%v, met: %v", err, r.Met)
		}
		if r.Measured > 40 {
			t.Errorf("error %g: %d measurements", e, r.Measured)
		}
	}
	broken := errors.New("broken")
	if _, err := Search(t.Context(), layers, nil, 1, func(context.Context, []int) (float64, error) { return 0, broken }); err != broken {
		t.Errorf("error %v is lost", err)
	}
}

func TestFrontier(t *testing.T) {
	all := []Option{{1e-7, 10}, {1e-6, 4}, {1e-5, 4}, {1e-2, 5}, {1e-3, 1}}
	if got := Frontier(all); !slices.Equal(got, []int{4, 1, 0}) {
		t.Errorf("%v, want 4 1 0", got)
	}
	if got := Frontier([]Option{{0, 1}, {0, 1}}); !slices.Equal(got, []int{0}) {
		t.Errorf("equal options: %v", got)
	}
}
