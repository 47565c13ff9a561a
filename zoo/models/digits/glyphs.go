package digits

// point is a place in the unit square, y downwards.
type point struct{ x, y float64 }

// stroke is a polyline of the pen.
type stroke []point

// arc is a part of an ellipse as a polyline; angles are in turns, clockwise
// from three o'clock.
func arc(cx, cy, rx, ry, from, to float64) stroke {
	const n = 14
	s := make(stroke, n+1)
	for i := range s {
		t := from + mul(to-from, float64(i)/n)
		sin, cos := sincos(t)
		s[i] = point{cx + mul(rx, cos), cy + mul(ry, sin)}
	}
	return s
}

func join(parts ...stroke) stroke {
	var s stroke
	for _, p := range parts {
		s = append(s, p...)
	}
	return s
}

// glyphs are the ways in which each digit is written.
var glyphs = [10][][]stroke{
	0: {
		{arc(.5, .5, .28, .42, 0, 1)},
		{arc(.5, .5, .36, .40, .2, 1.2)},
	},
	1: {
		{{{.5, .08}, {.5, .92}}},
		{{{.32, .26}, {.54, .08}, {.54, .92}}},
		{{{.34, .24}, {.54, .08}, {.54, .92}}, {{.32, .92}, {.76, .92}}},
	},
	2: {
		{join(arc(.48, .32, .26, .24, .55, 1.08), stroke{{.24, .9}, {.8, .9}})},
		{join(arc(.48, .32, .26, .24, .6, 1.12), arc(.32, .8, .1, .1, .8, .2), stroke{{.56, .84}, {.82, .9}})},
	},
	3: {
		{join(arc(.46, .29, .25, .21, .6, 1.22), arc(.46, .70, .28, .22, .8, 1.4))},
		{join(stroke{{.24, .1}, {.74, .1}, {.46, .42}}, arc(.46, .68, .28, .24, .8, 1.4))},
	},
	4: {
		{{{.58, .08}, {.18, .64}, {.84, .64}}, {{.62, .38}, {.62, .94}}},
		{{{.26, .1}, {.22, .52}, {.76, .52}}, {{.72, .1}, {.68, .94}}},
		{{{.64, .92}, {.64, .08}, {.2, .62}, {.84, .62}}},
	},
	5: {
		{join(stroke{{.76, .1}, {.32, .1}, {.28, .46}}, arc(.46, .66, .27, .25, .7, 1.38))},
		{join(stroke{{.34, .1}, {.3, .44}}, arc(.46, .66, .28, .26, .68, 1.38)), {{.34, .1}, {.78, .08}}},
	},
	6: {
		{join(stroke{{.66, .08}, {.42, .3}, {.28, .56}}, arc(.5, .68, .24, .23, .5, 1.6))},
		{join(arc(.6, .5, .36, .42, .8, .45), arc(.48, .7, .23, .21, .5, 1.55))},
	},
	7: {
		{{{.22, .12}, {.78, .12}, {.42, .92}}},
		{{{.22, .14}, {.78, .12}, {.44, .92}}, {{.36, .5}, {.74, .5}}},
		{{{.24, .24}, {.26, .12}, {.76, .12}, {.56, .46}, {.5, .92}}},
	},
	8: {
		{arc(.5, .29, .21, .2, .25, 1.25), arc(.5, .7, .26, .22, .75, 1.75)},
		{join(stroke{{.74, .16}}, arc(.5, .29, .2, .2, .9, .3), arc(.5, .71, .24, .21, .75, 1.7), stroke{{.72, .2}})},
	},
	9: {
		{join(arc(.5, .32, .24, .23, 0, 1), stroke{{.74, .34}, {.7, .62}, {.6, .94}})},
		{join(arc(.5, .32, .24, .23, -.05, 1), arc(.48, .62, .27, .3, .03, .4))},
		{join(arc(.48, .3, .22, .21, 0, 1), stroke{{.71, .1}, {.71, .94}})},
	},
}
