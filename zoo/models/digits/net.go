package digits

import "math"

// The network: two 3×3 convolutions of same size, each with ReLU and a 2×2
// maximum, then two dense layers.
const (
	channels1 = 8
	channels2 = 16
	half      = Size / 2
	quarter   = Size / 4
	features  = channels2 * quarter * quarter
	hidden    = 32
)

// params is one number per weight: the weights themselves, their gradients or
// their momenta.
type params struct {
	conv1, bias1 []float32
	conv2, bias2 []float32
	fc1, bias3   []float32
	fc2, bias4   []float32
}

// all lists the tensors in a fixed order.
func (p *params) all() [][]float32 {
	return [][]float32{p.conv1, p.bias1, p.conv2, p.bias2, p.fc1, p.bias3, p.fc2, p.bias4}
}

func newParams() *params {
	return &params{
		make([]float32, channels1*9), make([]float32, channels1),
		make([]float32, channels2*channels1*9), make([]float32, channels2),
		make([]float32, hidden*features), make([]float32, hidden),
		make([]float32, Classes*hidden), make([]float32, Classes),
	}
}

// initial draws He-uniform weights and no biases.
func initial(s *Source) *params {
	p := newParams()
	fans := []int{9, 0, channels1 * 9, 0, features, 0, hidden, 0}
	for i, t := range p.all() {
		if fans[i] == 0 {
			continue
		}
		limit := math.Sqrt(6 / float64(fans[i]))
		for j := range t {
			t[j] = float32(s.between(-limit, limit))
		}
	}
	return p
}

// tape holds what one image leaves on its way through, with a border of zeros
// around the operands of the convolutions.
type tape struct {
	x    []float32 // (Size+2)²
	c1   []float32 // after ReLU
	p1   []float32 // channels1 × (half+2)²
	at1  []int
	c2   []float32
	p2   []float32 // features
	at2  []int
	h    []float32
	prob []float32

	dc1, dp1, dc2, dp2, dh, dy []float32
}

func newTape() *tape {
	f := func(n int) []float32 { return make([]float32, n) }
	return &tape{
		x: f((Size + 2) * (Size + 2)), c1: f(channels1 * Size * Size), p1: f(channels1 * (half + 2) * (half + 2)),
		at1: make([]int, channels1*half*half), c2: f(channels2 * half * half), p2: f(features), at2: make([]int, features),
		h: f(hidden), prob: f(Classes),
		dc1: f(channels1 * Size * Size), dp1: f(channels1 * (half + 2) * (half + 2)), dc2: f(channels2 * half * half),
		dp2: f(features), dh: f(hidden), dy: f(Classes),
	}
}

// axpy adds a·x to y; every product is rounded by itself.
func axpy(a float32, x, y []float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] += float32(a * x[i])
	}
}

func dot(x, y []float32) float32 {
	x = x[:len(y)]
	var sum float32
	for i := range y {
		sum += float32(x[i] * y[i])
	}
	return sum
}

// conv is a 3×3 convolution over bordered planes of side n+2, with ReLU.
func conv(x, w, b, y []float32, in, out, n int) {
	m := n + 2
	for o := range out {
		plane := y[o*n*n : (o+1)*n*n]
		for i := range plane {
			plane[i] = b[o]
		}
		for i := range in {
			for k := range 9 {
				f := w[(o*in+i)*9+k]
				from := x[i*m*m+k/3*m+k%3:]
				for r := range n {
					axpy(f, from[r*m:], plane[r*n:(r+1)*n])
				}
			}
		}
		for i, v := range plane {
			plane[i] = max(v, 0)
		}
	}
}

// convBack adds the gradients of weights and biases, and of the operand if dx
// is not nil; dy is already masked by the ReLU.
func convBack(x, w, dy, dw, db, dx []float32, in, out, n int) {
	m := n + 2
	for o := range out {
		plane := dy[o*n*n : (o+1)*n*n]
		var sum float32
		for _, v := range plane {
			sum += v
		}
		db[o] += sum
		for i := range in {
			for k := range 9 {
				at := i*m*m + k/3*m + k%3
				var sum float32
				for r := range n {
					sum += dot(x[at+r*m:], plane[r*n:(r+1)*n])
				}
				dw[(o*in+i)*9+k] += sum
				if dx == nil {
					continue
				}
				f := w[(o*in+i)*9+k]
				for r := range n {
					axpy(f, plane[r*n:(r+1)*n], dx[at+r*m:at+r*m+n])
				}
			}
		}
	}
}

// pool takes the maximum of 2×2; border is that of the result's planes.
func pool(x, y []float32, at []int, c, n, border int) {
	h := n / 2
	m := h + 2*border
	for p := range c * h * h {
		ch, r, k := p/(h*h), p/h%h, p%h
		best := ch*n*n + 2*r*n + 2*k
		for _, i := range []int{best + 1, best + n, best + n + 1} {
			if x[i] > x[best] {
				best = i
			}
		}
		at[p] = best
		y[ch*m*m+(r+border)*m+k+border] = x[best]
	}
}

// poolBack hands gradients to where the maxima were, unless the ReLU before
// them gave zero.
func poolBack(dy, x, dx []float32, at []int, c, n, border int) {
	h := n / 2
	m := h + 2*border
	clear(dx)
	for p := range c * h * h {
		ch, r, k := p/(h*h), p/h%h, p%h
		if x[at[p]] > 0 {
			dx[at[p]] += dy[ch*m*m+(r+border)*m+k+border]
		}
	}
}

// exp of a number that is not positive, by squaring a series; like sincos it
// is the same everywhere.
func exp(v float64) float64 {
	if v < -80 {
		return 0
	}
	x := v / 1024
	term, sum := 1.0, 1.0
	for k := 1; k <= 8; k++ {
		term = mul(term, x) / float64(k)
		sum += term
	}
	for range 10 {
		sum = mul(sum, sum)
	}
	return sum
}

// forward leaves the probabilities in the tape.
func (p *params) forward(img []uint8, t *tape) {
	for i, v := range img {
		t.x[(i/Size+1)*(Size+2)+i%Size+1] = float32(float64(v) / 255)
	}
	conv(t.x, p.conv1, p.bias1, t.c1, 1, channels1, Size)
	pool(t.c1, t.p1, t.at1, channels1, Size, 1)
	conv(t.p1, p.conv2, p.bias2, t.c2, channels1, channels2, half)
	pool(t.c2, t.p2, t.at2, channels2, half, 0)
	for i := range t.h {
		t.h[i] = max(p.bias3[i]+dot(t.p2, p.fc1[i*features:(i+1)*features]), 0)
	}
	top := float32(-math.MaxFloat32)
	for i := range t.prob {
		t.prob[i] = p.bias4[i] + dot(t.h, p.fc2[i*hidden:(i+1)*hidden])
		top = max(top, t.prob[i])
	}
	sum := 0.0
	var e [Classes]float64
	for i, v := range t.prob {
		e[i] = exp(float64(v) - float64(top))
		sum += e[i]
	}
	for i := range t.prob {
		t.prob[i] = float32(e[i] / sum)
	}
}

// backward adds the gradients of the cross entropy to g.
func (p *params) backward(class int, t *tape, g *params) {
	copy(t.dy, t.prob)
	t.dy[class]--
	clear(t.dh)
	for i, d := range t.dy {
		g.bias4[i] += d
		axpy(d, t.h, g.fc2[i*hidden:(i+1)*hidden])
		axpy(d, p.fc2[i*hidden:(i+1)*hidden], t.dh)
	}
	clear(t.dp2)
	for i, d := range t.dh {
		if t.h[i] <= 0 {
			continue
		}
		g.bias3[i] += d
		axpy(d, t.p2, g.fc1[i*features:(i+1)*features])
		axpy(d, p.fc1[i*features:(i+1)*features], t.dp2)
	}
	poolBack(t.dp2, t.c2, t.dc2, t.at2, channels2, half, 0)
	clear(t.dp1)
	convBack(t.p1, p.conv2, t.dc2, g.conv2, g.bias2, t.dp1, channels1, channels2, half)
	poolBack(t.dp1, t.c1, t.dc1, t.at1, channels1, Size, 1)
	convBack(t.x, p.conv1, t.dc1, g.conv1, g.bias1, nil, 1, channels1, Size)
}
