package csource

import (
	"flag"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/lower"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/golden"
)

// TestRender runs each testdata/render/*.txtar: a core graph, its kernels, and
// their C for a CPU without tiles of its own. The first line is "render" and
// the traits: -lanes, -regs, -arch.
func TestRender(t *testing.T) {
	golden.Run(t, filepath.Join("..", "..", "testdata", "render"), func(t *testing.T, c *golden.Case) {
		fs := flag.NewFlagSet("case", flag.ContinueOnError)
		lanes, regs, arch := fs.Int("lanes", 4, ""), fs.Int("regs", 32, ""), fs.String("arch", "any", "")
		if err := fs.Parse(c.Command()[1:]); err != nil {
			t.Fatal(err)
		}
		g, err := ir.Parse(c.Input("in"))
		if err != nil {
			t.Fatal(err)
		}
		p, err := lower.Lower(g, lower.Options{Lanes: *lanes, Regs: *regs})
		if err != nil {
			t.Fatal(err)
		}
		var kernels, code strings.Builder
		for _, k := range p.Kernels {
			kernels.WriteString(k.String())
			code.WriteString(Kernel(k, backend.Traits{Arch: *arch, Lanes: *lanes, Regs: *regs}))
		}
		c.Want("kernel", kernels.String())
		c.Want("c", code.String())
		compiles(t, code.String())
	})
}

// compiles holds that a C compiler takes the text without a word.
func compiles(t *testing.T, code string) {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Log("no cc: the text was not compiled")
		return
	}
	c := exec.Command(cc, "-std=gnu11", "-fopenmp-simd", "-Wall", "-Werror", "-Wno-unused-function", "-fsyntax-only", "-x", "c", "-")
	c.Stdin = strings.NewReader(runtimeHeader + code)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestLiterals holds that every constant is printed to the bit.
func TestLiterals(t *testing.T) {
	for _, c := range []struct {
		d    tensor.DType
		f    float64
		i    int64
		want string
	}{
		{tensor.F32, 0.5, 0, "0x1p-01f"},
		{tensor.F32, float64(float32(0.1)), 0, "0x1.99999ap-04f"},
		{tensor.F64, 0.1, 0, "0x1.999999999999ap-04"},
		{tensor.F32, math.Copysign(0, -1), 0, "(-0x0p+00f)"},
		{tensor.F32, -1, 0, "(-0x1p+00f)"},
		{tensor.F32, math.NaN(), 0, "F32_NAN"},
		{tensor.F64, math.Inf(1), 0, "F64_INF"},
		{tensor.F32, math.Inf(-1), 0, "(-F32_INF)"},
		{tensor.F16, 1, 0, "to_f16_f32(0x1p+00f)"},
		{tensor.I64, 0, -7, "-7"},
		{tensor.I64, 0, 1 << 40, "1099511627776LL"},
		{tensor.I64, 0, math.MinInt64, "INT64_MIN"},
		{tensor.U64, 0, -1, "18446744073709551615ULL"},
		{tensor.U8, 0, 200, "(u8)200"},
		{tensor.Bool, 0, 1, "(u8)1"},
	} {
		if got := literal(loop.Number(c.d, c.f, c.i)); got != c.want {
			t.Errorf("%s %v %d: got %s, want %s", c.d, c.f, c.i, got, c.want)
		}
	}
}

// TestConversions holds the way that each conversion takes: narrow floats
// through f32, floats to small integers through i32, bool by comparison.
func TestConversions(t *testing.T) {
	for _, c := range []struct {
		from, to tensor.DType
		want     string
	}{
		{tensor.F32, tensor.Bool, "(u8)(x != 0)"},
		{tensor.F16, tensor.Bool, "(u8)(f32_f16(x) != 0)"},
		{tensor.F16, tensor.F32, "f32_f16(x)"},
		{tensor.BF16, tensor.F16, "to_f16_f32(f32_bf16(x))"},
		{tensor.F64, tensor.F16, "to_f16_f64(x)"},
		{tensor.I64, tensor.BF16, "to_bf16_f64((double)x)"},
		{tensor.F32, tensor.U8, "((u8)(i32)(x))"},
		{tensor.F64, tensor.U32, "((u32)(i64)(x))"},
		{tensor.F32, tensor.U64, "u64_f64((double)x)"},
		{tensor.F32, tensor.I64, "((i64)x)"},
		{tensor.I8, tensor.U16, "((u16)x)"},
	} {
		if got := convert(c.from, c.to, "x"); got != c.want {
			t.Errorf("%s to %s: got %s, want %s", c.from, c.to, got, c.want)
		}
	}
}

// TestExpressions holds how calls are printed: C's operators where they mean
// the same, cut back where C would compute in int, floor where an index may be
// negative.
func TestExpressions(t *testing.T) {
	at := func(name string, d tensor.DType) *loop.Expr {
		return loop.At(&loop.Buffer{Name: name, Type: d, Len: 9}, loop.Int(0))
	}
	x, y, n, b := at("x", tensor.F32), at("y", tensor.F32), at("n", tensor.U8), at("b", tensor.Bool)
	i := loop.V(&loop.Var{Name: "i", N: 10})
	for _, c := range []struct {
		e    *loop.Expr
		want string
	}{
		{loop.Fn("add", x, y), "(x[0] + y[0])"},
		{loop.Fn("max", x, y), "max_f32(x[0], y[0])"},
		{loop.Fn("div", x, y), "(x[0] / y[0])"},
		{loop.Fn("div", n, n), "((u8)div_u8(n[0], n[0]))"},
		{loop.Fn("add", n, n), "((u8)(n[0] + n[0]))"},
		{loop.Fn("and", b, b), "(b[0] && b[0])"},
		{loop.Fn("not", b), "(u8)!b[0]"},
		{loop.If(loop.Fn("lt", x, y), x, loop.Fn("neg", y)), "((x[0] < y[0]) ? x[0] : (-y[0]))"},
		{loop.Reinterpret(tensor.I32, x), "bits_i32_f32(x[0])"},
		{loop.Div(loop.Add(i, loop.Int(3)), 4), "((i64)((u32)(i + 3) / 4u))"},
		{loop.Div(loop.Sub(i, loop.Int(3)), 4), "(((i64)((u32)(i + 1) / 4u)) + -1)"},
		{loop.Mod(loop.Mul(i, -1), 4), "floor_mod((i * -1), 4)"},
	} {
		p := &printer{b: &strings.Builder{}, temps: map[string]string{}, needs: map[string]bool{}, regs: map[*loop.Reg]string{}}
		if got := p.expr(c.e); got != c.want {
			t.Errorf("%s: got %s, want %s", c.e.Key(), got, c.want)
		}
	}
}

// TestGuardedLoadsStayBehindTheirGuard holds that a load which a condition
// protects is not named in front of it, while what is certain is named once.
func TestGuardedLoadsStayBehindTheirGuard(t *testing.T) {
	y := &loop.Buffer{Name: "y", Type: tensor.F32, Len: 10, Out: true}
	x := &loop.Buffer{Name: "x", Type: tensor.F32, Len: 5}
	i := &loop.Var{Name: "i", N: 10}
	v := loop.At(x, loop.V(i))
	e := loop.If(loop.Less(loop.V(i), loop.Int(5)), loop.Fn("mul", v, v), loop.Number(tensor.F32, 0, 0))
	k := &loop.Kernel{Family: "pointwise", Params: []*loop.Buffer{y, x}, Body: []loop.Stmt{
		&loop.For{Var: i, Kind: loop.Vector, Body: []loop.Stmt{&loop.Store{Buf: y, Index: loop.V(i), Val: e}}}}}
	code := Kernel(k, backend.Traits{})
	before, _, found := strings.Cut(code, "?")
	if !found || strings.Contains(before, "x[i]") {
		t.Errorf("x[i] is read before i < 5 is known:\n%s", code)
	}
	compiles(t, code)
}

// TestNamesNeverLeaveTheirQuotes holds what stands between a model's names and
// the C compiler.
func TestNamesNeverLeaveTheirQuotes(t *testing.T) {
	for in, want := range map[string]string{
		`a"; system("x"); //`: `"a\042; system(\042x\042); //"`,
		"line\nbreak\\":       `"line\012break\134"`,
		"??/trigraph %n":      `"\077\077/trigraph \045n"`,
		"\xff\x00é":           `"\377\000\303\251"`,
	} {
		if got := Quote(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{"": "model", "9lives": "_lives", "a-b.c": "a_b_c", "ünï": "_n_", "int main(){}": "int_main____"} {
		if got := Identifier(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
