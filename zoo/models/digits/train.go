package digits

import (
	"runtime"
	"sync"
)

// The recipe of the model that ships.
const (
	Seed  = 20
	Steps = 800

	batch    = 32
	lanes    = 8 // sums of gradients, whatever the number of processors
	rate     = 0.02
	momentum = 0.9
)

// Model is a trained network.
type Model struct{ p *params }

// Train trains a model for some steps of the recipe; the result depends on the
// seed and the steps alone. total is the length of the schedule.
func Train(seed uint64, steps, total int, progress func(step int, loss float64)) *Model {
	src := NewSource(seed)
	m := &Model{initial(src)}
	speed := newParams()
	var grads [lanes]*params
	var tapes [lanes]*tape
	for i := range grads {
		grads[i], tapes[i] = newParams(), newTape()
	}
	for step := range steps {
		var imgs [batch][]uint8
		var classes [batch]int
		for i := range imgs {
			imgs[i], classes[i] = src.Next()
		}
		var losses [lanes]float64
		each(lanes, func(lane int) {
			for _, t := range grads[lane].all() {
				clear(t)
			}
			for i := lane; i < batch; i += lanes {
				m.p.forward(imgs[i], tapes[lane])
				losses[lane] += 1 - float64(tapes[lane].prob[classes[i]])
				m.p.backward(classes[i], tapes[lane], grads[lane])
			}
		})
		lr := float32(mul(rate, 1-float64(step)/float64(total)))
		update(m.p, speed, grads, lr)
		if progress != nil {
			sum := 0.0
			for _, l := range losses {
				sum += l
			}
			progress(step, sum/batch)
		}
	}
	return m
}

// update is a step of gradient descent with momentum; lanes are summed in
// order.
func update(p, speed *params, grads [lanes]*params, lr float32) {
	ws, vs := p.all(), speed.all()
	for k := range ws {
		var lane [lanes][]float32
		for l := range lane {
			lane[l] = grads[l].all()[k]
		}
		for i := range ws[k] {
			var g float32
			for l := range lane {
				g += lane[l][i]
			}
			vs[k][i] = float32(momentum*vs[k][i]) + float32(g/batch)
			ws[k][i] -= float32(lr * vs[k][i])
		}
	}
}

// each calls f for 0 to n-1, on several processors.
func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	wg.Wait()
}

// Predict gives the probability of each digit.
func (m *Model) Predict(img []uint8) []float32 {
	t := newTape()
	m.p.forward(img, t)
	return t.prob
}

// Accuracy is the share of n images of another seed that the model reads right.
func (m *Model) Accuracy(seed uint64, n int) float64 {
	src := NewSource(seed)
	t := newTape()
	right := 0
	for range n {
		img, class := src.Next()
		m.p.forward(img, t)
		best := 0
		for i, v := range t.prob {
			if v > t.prob[best] {
				best = i
			}
		}
		if best == class {
			right++
		}
	}
	return float64(right) / float64(n)
}
