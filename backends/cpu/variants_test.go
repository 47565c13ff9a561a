package cpu_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/cpuid"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/precision"
	"github.com/lathe-ml/lathe/compiler/program"
)

// variant is a way to compile that the recorded cases must be right in.
type variant struct {
	cpu  string
	mode precision.Mode
}

// byLayer reports that outputs of whole networks have no stated error: their
// layers are held to the bound by the tests of lathe bench --errors, and cases of
// one op to it here.
func (v variant) byLayer() bool { return v.mode.Bound() > precision.Fast.Bound() }

// tolerance is that of f32. What the bound comes to in a network is added where
// products are made of parts, in f32-fast on a matrix unit.
func (v variant) tolerance(t *testing.T, f32 conformance.Tolerance) conformance.Tolerance {
	t.Helper()
	traits, err := cpu.Target(v.cpu)
	if err != nil {
		t.Fatal(err)
	}
	if v.mode == precision.Fast && traits.Has("amx-bf16") {
		f32.Bound = v.mode.Bound()
	}
	return f32
}

func (v variant) String() string { return strings.ReplaceAll(v.cpu, "+", ",") + "@" + v.mode.String() }

// variants are the columns of the conformance tests. Cases whose code a column
// before has too are not compiled again.
var variants = []variant{
	{"native", precision.F32},
	{"native", precision.Fast},
	{"native", precision.IEEE},
	{"native", precision.F16},
	{"native", precision.BF16},
	{"x86-64-v3", precision.F32},
	{"x86-64-v3", precision.Fast},
	{emulatedUnit, precision.F32},
	{emulatedUnit, precision.Fast},
	{emulatedUnit, precision.BF16},
}

// emulatedUnit is this machine with a matrix unit, whose instructions are emulated
// whether it has one or not.
const emulatedUnit = "native+amx-tile+amx-bf16+amx-int8+" + backend.Emulated

// lacking is what this machine has not that code for a CPU needs, or why the CPU
// has not what the precision needs.
func (v variant) lacking(t *testing.T) string {
	t.Helper()
	traits, err := cpu.Target(v.cpu)
	if fault.Is(err, fault.Usage) && v.cpu == emulatedUnit {
		return err.Error() // matrix units belong to CPUs with AVX-512
	}
	if err != nil {
		t.Fatal(err)
	}
	if have := cpuid.Here(); v.cpu != "native" {
		for _, f := range traits.Needs() {
			if !slices.Contains(have, f) {
				return "this CPU lacks " + f
			}
		}
	}
	if v.mode == precision.BF16 && !traits.Has("avx512-bf16") && !traits.Has("amx-bf16") {
		return "the CPU has no products of bfloat16"
	}
	return ""
}

// largest is the size of weights up to which artifacts are kept.
const largest = 1 << 20

// identity tells artifacts apart by all that decides what they compute: their
// sources, without what they ask of the CPU, and their constants.
func identity(be backend.Backend, p *program.Program, o backend.Options) (string, error) {
	srcs, err := be.Emit(p, o)
	if err != nil {
		return "", err
	}
	o.Traits.CPU, o.Traits.Features = "", nil
	anyCPU, err := be.Emit(p, o)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for i, s := range srcs {
		if s.Name == "model.c" {
			s = anyCPU[i]
		}
		fmt.Fprintf(h, "%s %q %d\n%s", s.Name, s.Flags, len(s.Text), s.Text)
	}
	for _, c := range p.Consts {
		b, err := c.Fill()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%d %d\n%s", c.Buf.Offset, len(b), b)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// reusing is a backend that builds an artifact once: a program with the same
// sources and constants is the same artifact, whatever it was lowered for.
func reusing(t *testing.T, be backend.Backend) (again backend.Backend, reused func() int) {
	t.Helper()
	var mu sync.Mutex
	kept, n := t.TempDir(), 0
	again = be
	again.Build = func(ctx context.Context, p *program.Program, dir string, o backend.Options) error {
		if p.Weights > largest {
			return be.Build(ctx, p, dir, o)
		}
		id, err := identity(be, p, o)
		if err != nil {
			return err
		}
		whole := filepath.Join(kept, id)
		if err := os.CopyFS(dir, os.DirFS(whole)); err == nil {
			mu.Lock()
			n++
			mu.Unlock()
			return nil
		} else if !os.IsNotExist(err) {
			return err
		}
		if err := be.Build(ctx, p, dir, o); err != nil {
			return err
		}
		part, err := os.MkdirTemp(kept, "part-")
		if err != nil {
			return err
		}
		if err := os.CopyFS(part, os.DirFS(dir)); err != nil {
			return err
		}
		if err := os.Rename(part, whole); err != nil && !os.IsExist(err) {
			return err
		}
		return nil
	}
	return again, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}
