package digits

import (
	"math"
	"math/rand/v2"
)

// Size is the side of an image in pixels, Classes the number of digits.
const (
	Size    = 28
	Classes = 10
)

// mul is a product that is rounded before anything is added to it.
func mul(a, b float64) float64 { return float64(a * b) }

// sincos of an angle in turns, by their series. The functions of package math
// differ in the last bit between processors.
func sincos(turns float64) (sin, cos float64) {
	turns -= math.Floor(turns + 0.5)
	x := mul(turns, 2*math.Pi)
	xx := mul(x, x)
	s, c := x, 1.0
	ts, tc := x, 1.0
	for k := 1; k <= 12; k++ {
		f := float64(2 * k)
		tc = -mul(tc, xx) / mul(f-1, f)
		ts = -mul(ts, xx) / mul(f, f+1)
		s, c = s+ts, c+tc
	}
	return s, c
}

// Source draws images from a seed.
type Source struct{ rng *rand.Rand }

// NewSource makes a source of images.
func NewSource(seed uint64) *Source { return &Source{rand.New(rand.NewPCG(seed, 0x6469676974))} }

// between is uniform.
func (s *Source) between(lo, hi float64) float64 { return lo + mul(hi-lo, s.rng.Float64()) }

// normal is close to normal: the sum of twelve uniform numbers.
func (s *Source) normal() float64 {
	sum := -6.0
	for range 12 {
		sum += s.rng.Float64()
	}
	return sum
}

// Next draws a digit and its image: Size×Size grey values from 0 to 255, the
// ink is bright.
func (s *Source) Next() (img []uint8, class int) {
	class = s.rng.IntN(Classes)
	return s.Digit(class), class
}

// Digit draws an image of a digit.
func (s *Source) Digit(class int) []uint8 {
	forms := glyphs[class]
	strokes := s.placed(forms[s.rng.IntN(len(forms))])
	pen, soft := s.between(0.8, 2.0), s.between(0.5, 1.0)
	ink, noise := s.between(0.75, 1), s.between(0, 0.12)
	img := make([]uint8, Size*Size)
	for y := range Size {
		for x := range Size {
			d := distance(strokes, point{float64(x), float64(y)})
			v := mul(ink, min(max((pen-d)/soft+0.5, 0), 1))
			v += mul(noise, s.normal())
			img[y*Size+x] = uint8(mul(255, min(max(v, 0), 1)) + 0.5)
		}
	}
	return img
}

// placed bends, shears, turns, scales and shifts strokes onto the pixels.
func (s *Source) placed(strokes []stroke) []stroke {
	sin, cos := sincos(mul(0.03, s.normal()))
	shear := mul(0.12, s.normal())
	width, height := s.between(15, 24), s.between(17, 24)
	cx, cy := 13.5+s.between(-2.5, 2.5), 13.5+s.between(-2.5, 2.5)
	bend, phase, waves := mul(0.03, s.normal()), s.rng.Float64(), s.between(0.5, 1.2)
	lean, tilt := mul(0.03, s.normal()), s.rng.Float64()
	out := make([]stroke, len(strokes))
	for i, st := range strokes {
		for _, p := range st {
			wx, _ := sincos(mul(p.y, waves) + phase)
			wy, _ := sincos(mul(p.x, waves) + tilt)
			x := mul(p.x-0.5+mul(bend, wx)-mul(shear, p.y-0.5), width)
			y := mul(p.y-0.5+mul(lean, wy), height)
			out[i] = append(out[i], point{cx + mul(x, cos) - mul(y, sin), cy + mul(x, sin) + mul(y, cos)})
		}
	}
	return out
}

// distance is how far a point is from the nearest line of the strokes.
func distance(strokes []stroke, p point) float64 {
	best := math.MaxFloat64
	for _, s := range strokes {
		for i := 1; i < len(s); i++ {
			a, b := s[i-1], s[i]
			dx, dy := b.x-a.x, b.y-a.y
			px, py := p.x-a.x, p.y-a.y
			t := 0.0
			if l := mul(dx, dx) + mul(dy, dy); l > 0 {
				t = min(max((mul(px, dx)+mul(py, dy))/l, 0), 1)
			}
			ex, ey := px-mul(t, dx), py-mul(t, dy)
			best = min(best, mul(ex, ex)+mul(ey, ey))
		}
	}
	return math.Sqrt(best)
}
