package csource

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/lathe-ml/lathe/backends/cpuid"
	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
	"github.com/lathe-ml/lathe/compiler/program"
)

//go:embed runtime/lathe_rt.h
var runtimeHeader string

//go:embed runtime/lathe_amx.h
var unitSource string

//go:embed runtime/lathe_bytes.h
var bytesSource string

//go:embed runtime/callers.c
var callersSource string

//go:embed runtime/pin.c
var pinSource string

//go:embed runtime/pool.c
var poolSource string

//go:embed runtime/choose.c
var chooseSource string

//go:embed runtime/entry.c
var entrySource string

//go:embed runtime/artifact.h
var artifactHeader string

//go:embed runtime/api.c
var apiSource string

// Identifier turns any name into a C identifier.
func Identifier(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '_', r >= '0' && r <= '9' && b.Len() > 0:
			b.WriteRune(r)
		default:
			b.WriteByte('_')
		}
	}
	if b.Len() == 0 {
		return "model"
	}
	return b.String()
}

// Quote prints a string as a C literal that no content can leave.
func Quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(" _-./:;,+=()[]<>@#$&!~|^'", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "\\%03o", c)
	}
	b.WriteByte('"')
	return b.String()
}

// Program prints the program of an artifact, once for each CPU that it is for,
// the widest first: the entry points and the runtime, which run on any CPU of the
// architecture and have no flags of their own, and each variant's steps and kernels.
func Program(vs []backend.Variant, weights int, o backend.Options) []backend.Source {
	name := Identifier(o.Name)
	p := vs[0].Program
	out := []backend.Source{
		{Name: "lathe_rt.h", Text: []byte(runtimeHeader)},
		{Name: "artifact.h", Text: []byte(artifactHeader)},
		{Name: "model.h", Text: []byte(header(p, name))},
		{Name: "runtime.c", Text: []byte(runtime())},
		{Name: "model.c", Text: []byte(model(vs, weights, name, o))},
	}
	unit, runs := false, false
	for _, v := range vs {
		prefix := prefixOf(v, vs)
		add := func(file, text string) {
			out = append(out, backend.Source{Name: prefix + file, Text: []byte(text), Flags: v.Traits.Flags})
		}
		u := printKernels(v.Program.Kernels, v.Traits, o.Separate)
		add("steps.c", steps(v.Program, u, v.Traits, prefix))
		for i, f := range u.files {
			var b strings.Builder
			b.WriteString("#include \"lathe_rt.h\"\n")
			if h := unitHeader(f.kernels, v.Traits); h != "" {
				b.WriteString(h)
				unit = true
			}
			if usesBytes(f.text) {
				b.WriteString(bytesHeader)
				runs = true
			}
			rename(&b, f.kernels, prefix)
			b.WriteString(f.text)
			add(fmt.Sprintf("kernels%d.c", i), b.String())
		}
	}
	if unit {
		out = append(out, backend.Source{Name: "lathe_amx.h", Text: []byte(unitSource)})
	}
	if runs {
		out = append(out, backend.Source{Name: "lathe_bytes.h", Text: []byte(bytesSource)})
	}
	return out
}

// prefixOf keeps the names of variants apart; one alone has none, so that its
// objects are those of any other model.
func prefixOf(v backend.Variant, vs []backend.Variant) string {
	if len(vs) == 1 {
		return ""
	}
	return Identifier(v.Traits.CPU) + "_"
}

// rename gives a variant's kernels names of their own.
func rename(b *strings.Builder, ks []*loop.Kernel, prefix string) {
	for _, k := range ks {
		if prefix != "" {
			fmt.Fprintf(b, "#define %s %s%s\n", KernelName(k), prefix, KernelName(k))
		}
	}
}

// scratch is what a thread needs for the neediest kernel.
func scratch(p *program.Program) int {
	n := 0
	for _, k := range p.Kernels {
		n = max(n, Scratch(k))
	}
	return n
}

// includes is what the parts of the runtime need.
const includes = `#define _GNU_SOURCE
#include "lathe_rt.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <link.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#define API __attribute__((visibility("default")))
`

// runtime is the file that is the same for every model, so that its object
// comes from the cache: most of what a compiler has to do for a small model.
func runtime() string {
	var b strings.Builder
	b.WriteString(includes)
	b.WriteString("#include \"artifact.h\"\n#define LATHE_THREADS 1\n#define LATHE_SCRATCH (V->scratch)\n\nvoid (*lathe_trace)(int, int);\n")
	for _, s := range []string{chooseSource, callersSource, pinSource, poolSource, entrySource} {
		b.WriteString("\n" + s)
	}
	return b.String()
}

// model prints the file with the tables of a model and the functions that are
// named after it.
func model(vs []backend.Variant, weights int, name string, o backend.Options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#include \"artifact.h\"\n#include \"model.h\"\n#define API __attribute__((visibility(\"default\")))\n#define NAME(f) %s_##f\n\n", name)
	variants(&b, vs)
	pin := "0"
	if o.Pin != "" {
		pin = Quote(o.Pin)
	}
	fmt.Fprintf(&b, "const struct artifact lathe_artifact = {variants, %d, %d, %d, %s};\n", len(vs), weights, max(o.Threads, 1), pin)
	signature(&b, vs[0].Program, name)
	b.WriteString(apiSource)
	return b.String()
}

// variants prints the table of the variants and what they need.
func variants(b *strings.Builder, vs []backend.Variant) {
	for i, v := range vs {
		fmt.Fprintf(b, "static const struct need needs%d[] = {\n", i)
		for _, name := range v.Traits.Needs() {
			if f, ok := cpuid.Find(v.Traits.Arch, name); ok {
				fmt.Fprintf(b, "  {%s, %#xu, %d, %d, %d, %#xu, %d},\n", Quote(name), f.Leaf, f.Sub, f.Reg, f.Bit, f.State, f.Aux)
			}
		}
		fmt.Fprintf(b, "  {\"\", 0, 0, 0, 0, 0, 0}\n};\nvoid %slathe_steps(const void *const *, void *const *, char *, const char *) HIDDEN;\n", prefixOf(v, vs))
	}
	b.WriteString("static const struct variant variants[] = {\n")
	for i, v := range vs {
		fmt.Fprintf(b, "  {%s, %d, %d, %slathe_steps, needs%d, sizeof needs%d / sizeof *needs%d - 1},\n", Quote(v.Traits.CPU), v.Program.Workspace, scratch(v.Program), prefixOf(v, vs), i, i, i)
	}
	b.WriteString("};\n")
}

// stepsPerFunction keeps functions of a size that compilers digest.
const stepsPerFunction = 400

// steps prints the file that calls a variant's kernels.
func steps(p *program.Program, u *units, t backend.Traits, prefix string) string {
	var b strings.Builder
	b.WriteString("#include \"lathe_rt.h\"\n")
	rename(&b, u.own, prefix)
	for _, k := range p.Kernels {
		if same := u.same[k]; same != nil {
			fmt.Fprintf(&b, "#define %[1]s %[2]s\n#define r_%[1]s r_%[2]s\n", KernelName(k), KernelName(same))
		}
	}
	for _, k := range u.own {
		fmt.Fprintf(&b, "%s;\n", Signature(k))
	}
	for _, k := range u.own {
		if !divided(k, t) {
			continue
		}
		var args []string
		for i := range k.Params {
			args = append(args, fmt.Sprintf("a[%d]", i))
		}
		fmt.Fprintf(&b, "static void r_%s(void *const *a, i64 lo, i64 hi) { %s(%s, lo, hi); }\n", KernelName(k), KernelName(k), strings.Join(args, ", "))
	}
	b.WriteString("static inline void region(region_fn f, void *const *a, i64 n) { if (lathe_threads_ == 1) f(a, 0, n); else lathe_region(f, a, n); }\n")
	parts := 0
	for i := 0; i < len(p.Steps); i += stepsPerFunction {
		fmt.Fprintf(&b, "static __attribute__((noinline)) void steps%d(const char *const *in, char *const *out, char *ws, const char *const w) {\n  (void)in; (void)out; (void)ws; (void)w;\n", parts)
		for j, s := range p.Steps[i:min(i+stepsPerFunction, len(p.Steps))] {
			step(&b, i+j, s, t)
		}
		b.WriteString("}\n")
		parts++
	}
	fmt.Fprintf(&b, "HIDDEN void %slathe_steps(const void *const *in, void *const *out, char *ws, const char *w) {\n", prefix)
	b.WriteString("  (void)in; (void)out; (void)ws; (void)w;\n")
	for i := range parts {
		fmt.Fprintf(&b, "  steps%d((const char *const *)in, (char *const *)out, ws, w);\n", i)
	}
	b.WriteString("}\n")
	return b.String()
}

// worthNS is the least time of a kernel that threads share: to hand work over
// and to wait for it takes about 700 ns.
const worthNS = 3000

// divided reports whether threads share a kernel's work: it has a loop for
// that, and enough to do, as a machine with caches that hold its data does it.
func divided(k *loop.Kernel, t backend.Traits) bool {
	ns := k.Flops/int64(4*max(t.Lanes, 1)) + k.Bytes/6
	return k.ParallelLoop() != nil && ns >= worthNS
}

func step(b *strings.Builder, i int, s program.Step, t backend.Traits) {
	var args []string
	for _, a := range s.Args {
		var e string
		switch a.Where {
		case program.Input:
			e = fmt.Sprintf("in[%d]", a.Index)
		case program.Output:
			e = fmt.Sprintf("out[%d]", a.Index)
		case program.Const:
			e = fmt.Sprintf("w + %d", a.Offset)
		default:
			e = fmt.Sprintf("ws + %d", a.Offset)
		}
		args = append(args, "(void *)("+e+")")
	}
	n := KernelName(s.Kernel)
	fmt.Fprintf(b, "  if (__builtin_expect(lathe_trace != 0, 0)) lathe_trace(%d, 1);\n", i)
	f := s.Kernel.ParallelLoop()
	switch {
	case f != nil && divided(s.Kernel, t):
		fmt.Fprintf(b, "  { void *a[] = {%s}; region(r_%s, a, %d); }\n", strings.Join(args, ", "), n, f.Var.N)
	case f != nil:
		fmt.Fprintf(b, "  %s(%s, 0, %d);\n", n, strings.Join(args, ", "), f.Var.N)
	default:
		fmt.Fprintf(b, "  %s(%s, 0, 0);\n", n, strings.Join(args, ", "))
	}
	fmt.Fprintf(b, "  if (__builtin_expect(lathe_trace != 0, 0)) lathe_trace(%d, 0);\n", i)
}
