package tolerance

import (
	"cmp"
	"context"
	"math"
	"slices"
)

// Option is one way to make a layer.
type Option struct {
	// Error is the relative error that the layer's own arithmetic adds.
	Error float64
	// Cost is about how long the layer takes, in any unit that all layers share.
	Cost float64
}

// Measure gives the relative error of the outputs with a choice of an option
// per layer.
type Measure func(ctx context.Context, pick []int) (float64, error)

// Result is what was picked.
type Result struct {
	Pick []int // per layer, the position of its option
	// Error is the measured error of the outputs with the pick.
	Error float64
	// Measured counts the choices that were measured.
	Measured int
	// Met is false if even the most exact options are beyond the budget; Pick are
	// those then.
	Met bool
}

// part of the budget is what a prediction aims at: predictions are about the
// size of errors and not about their signs.
const part = 0.9

// Search picks an option per layer. The options of a layer stand in the order
// of their cost, the cheapest first, each more exact than the one before. It
// begins with the cheapest everywhere, or where start says, and as long as the
// measured error is beyond the budget it gives those layers a more exact option
// that add most to the error for the time that they save. Errors of layers are
// independent: their squares add up, by a factor that each measurement gives
// anew. It is deterministic if measure is.
func Search(ctx context.Context, layers [][]Option, start []int, budget float64, measure Measure) (Result, error) {
	r := Result{Pick: slices.Clone(start)}
	if start == nil {
		r.Pick = make([]int, len(layers))
	}
	for round := 0; ; round++ {
		var err error
		if r.Error, err = measure(ctx, slices.Clone(r.Pick)); err != nil {
			return r, err
		}
		r.Measured++
		if r.Met = r.Error <= budget; r.Met || !demote(layers, &r, budget, 1<<min(round/2, 20)) {
			return r, nil
		}
	}
}

// demote gives layers their next option until the predicted error is within the
// budget, and at least some of them; false if no layer has a next option.
func demote(layers [][]Option, r *Result, budget float64, least int) bool {
	sum := 0.0
	for i, p := range r.Pick {
		sum += square(layers[i][p].Error)
	}
	if sum == 0 || math.IsInf(r.Error, 0) || math.IsNaN(r.Error) {
		sum = 1
	}
	factor := square(r.Error) / sum // of the outputs' error over what the layers add
	done := 0
	for done < least || factor*sum > square(part*budget) {
		best := worst(layers, r.Pick)
		if best < 0 {
			break
		}
		before := layers[best][r.Pick[best]]
		r.Pick[best]++
		sum -= square(before.Error) - square(layers[best][r.Pick[best]].Error)
		done++
	}
	return done > 0
}

// worst is the layer whose next option takes away most error for the time that
// it costs; -1 if there is none.
func worst(layers [][]Option, pick []int) int {
	best, most := -1, math.Inf(-1)
	for i, p := range pick {
		if p+1 >= len(layers[i]) {
			continue
		}
		a, b := layers[i][p], layers[i][p+1]
		gain := (square(a.Error) - square(b.Error)) / max(b.Cost-a.Cost, math.SmallestNonzeroFloat64)
		if gain > most {
			best, most = i, gain
		}
	}
	return best
}

func square(x float64) float64 { return x * x }

// Frontier orders the options of a layer by cost and drops those that another
// one beats in both; it gives their positions in the list.
func Frontier(all []Option) []int {
	at := make([]int, len(all))
	for i := range at {
		at[i] = i
	}
	slices.SortStableFunc(at, func(i, j int) int {
		if c := cmp.Compare(all[i].Cost, all[j].Cost); c != 0 {
			return c
		}
		return cmp.Compare(all[i].Error, all[j].Error)
	})
	var keep []int
	for _, i := range at {
		if len(keep) == 0 || all[i].Error < all[keep[len(keep)-1]].Error {
			keep = append(keep, i)
		}
	}
	return keep
}
