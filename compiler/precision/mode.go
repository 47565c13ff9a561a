package precision

import (
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
)

// Mode is a precision that a user asks for. The empty mode is F32.
type Mode string

// The modes, from the strictest to the loosest.
const (
	// IEEE uses multiply-adds of f32 only, each product once: the same bits for
	// every schedule and number of threads.
	IEEE Mode = "f32-ieee"
	// F32 also uses forms whose error is that of f32 sums: Winograd's with small
	// tiles, and on a matrix unit of bfloat16 six products of parts for one.
	F32 Mode = "f32"
	// Fast also uses Winograd's form with large tiles, and three products of parts
	// for one.
	Fast Mode = "f32-fast"
	// F16 keeps weights of products with few rows as float16; arithmetic is in f32.
	F16 Mode = "f16"
	// BF16 multiplies bfloat16 values and sums in f32.
	BF16 Mode = "bf16"
)

// Info is what a mode promises.
type Info struct {
	Mode Mode
	// Bound is the largest relative error of a layer, as the root of the mean
	// square of the differences to float64 over that of the values.
	Bound float64
	Doc   string
}

// Modes is the table of modes, from the strictest to the loosest.
var Modes = []Info{
	{IEEE, 2e-6, "multiply-adds of f32 only, the same bits for every schedule and number of threads"},
	{F32, 2e-6, "the error of f32 sums (default)"},
	{Fast, 3e-5, "faster forms whose error is below 3e-5"},
	{F16, 2e-3, "float16 weights in products with few rows, arithmetic in f32"},
	{BF16, 1e-2, "products of bfloat16 values, sums in f32"},
}

// rank orders the modes by how much they allow.
func (m Mode) rank() int {
	for i, x := range Modes {
		if x.Mode == m.or() {
			return i
		}
	}
	return -1
}

func (m Mode) or() Mode {
	if m == "" {
		return F32
	}
	return m
}

// String is the mode's name.
func (m Mode) String() string { return string(m.or()) }

// Bound is the largest relative error of a layer in the mode.
func (m Mode) Bound() float64 { return Modes[m.rank()].Bound }

// Allows reports whether a form that needs the precision n may be used in m.
func (m Mode) Allows(n Mode) bool { return m.rank() >= n.rank() }

// Names lists the modes.
func Names() []string {
	var out []string
	for _, x := range Modes {
		out = append(out, string(x.Mode))
	}
	return out
}

// Parse gives the mode of a name.
func Parse(s string) (Mode, error) {
	if m := Mode(s); m.rank() >= 0 {
		return m.or(), nil
	}
	return "", fault.New(fault.Usage, "unknown precision %q", s).Hint("precisions are %s", strings.Join(Names(), ", "))
}
