package csource

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/program"
)

//go:embed runtime/lathe_rt.h
var runtimeHeader string

//go:embed runtime/pool.c
var poolSource string

// kernelsPerFile bounds a source file: files are compiled at once and cached
// one by one.
const kernelsPerFile = 24

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

// Program prints a program: the model's source, its kernels in several files,
// the headers.
func Program(p *program.Program, o backend.Options) []backend.Source {
	name := Identifier(o.Name)
	out := []backend.Source{
		{Name: "lathe_rt.h", Text: []byte(runtimeHeader)},
		{Name: "model.h", Text: []byte(header(p, name))},
		{Name: "model.c", Text: []byte(model(p, name, o))},
	}
	for i, f := 0, 0; i < len(p.Kernels); i, f = i+kernelsPerFile, f+1 {
		var b strings.Builder
		b.WriteString("#include \"lathe_rt.h\"\n\n")
		for _, k := range p.Kernels[i:min(i+kernelsPerFile, len(p.Kernels))] {
			b.WriteString(Kernel(k, o.Traits))
			b.WriteByte('\n')
		}
		out = append(out, backend.Source{Name: fmt.Sprintf("kernels%d.c", f), Text: []byte(b.String())})
	}
	return out
}

// scratch is what a thread needs for the neediest kernel.
func scratch(p *program.Program) int {
	n := 0
	for _, k := range p.Kernels {
		n = max(n, Scratch(k))
	}
	return n
}

func header(p *program.Program, name string) string {
	var b strings.Builder
	up := strings.ToUpper(name)
	fmt.Fprintf(&b, `/* Made by lathe. Inputs and outputs are row-major arrays, in this order: */
#ifndef %s_MODEL_H
#define %s_MODEL_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

`, up, up)
	ports := func(kind string, ps []program.Port) {
		for i, q := range ps {
			fmt.Fprintf(&b, "/* %s %d: %s %v %s */\n", kind, i, q.Type.ONNX(), q.Shape, strings.Trim(strings.ReplaceAll(Quote(q.Name), "*/", "* /"), "\""))
		}
		fmt.Fprintf(&b, "#define %s_%sS %d\n", up, strings.ToUpper(kind), len(ps))
		for i, q := range ps {
			fmt.Fprintf(&b, "#define %s_%s%d_BYTES %d\n", up, strings.ToUpper(kind), i, q.Buf.Size())
		}
		b.WriteByte('\n')
	}
	ports("input", p.Inputs)
	ports("output", p.Outputs)
	fmt.Fprintf(&b, `/* The size of the workspace that run needs with the number of threads that is
   set; one for each concurrent caller. It must be aligned to 64 bytes. */
size_t %[1]s_workspace_size(void);

/* Runs the model. No memory is allocated. Gives 0, or 1 if the weights could not
   be loaded. */
int %[1]s_run(const void *const *inputs, void *const *outputs, void *workspace);

/* Optional: loads the weights from a file (0: weights.bin beside the library);
   run does it at its first call. Gives 0 on success. */
int %[1]s_load(const char *path);

/* Optional: how many threads share the work of a run. */
void %[1]s_set_threads(int threads);

/* The signature. Element types are numbered as in ONNX TensorProto.DataType. */
int %[1]s_input_count(void);
int %[1]s_output_count(void);
const char *%[1]s_input_name(int i);
const char *%[1]s_output_name(int i);
int %[1]s_input_type(int i);
int %[1]s_output_type(int i);
int %[1]s_input_rank(int i);
int %[1]s_output_rank(int i);
const int64_t *%[1]s_input_shape(int i);
const int64_t *%[1]s_output_shape(int i);

/* Optional: called before (begin = 1) and after each step; for profiles. */
void %[1]s_set_trace(void (*trace)(int step, int begin));

#ifdef __cplusplus
}
#endif
#endif
`, name)
	return b.String()
}

// model prints the file with the entry points.
func model(p *program.Program, name string, o backend.Options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#define _GNU_SOURCE\n#define LATHE_THREADS %d\n#define LATHE_SCRATCH %d\n#include \"lathe_rt.h\"\n#include \"model.h\"\n#include <dlfcn.h>\n#include <fcntl.h>\n#include <stdlib.h>\n#include <sys/mman.h>\n#include <sys/stat.h>\n#include <unistd.h>\n#define API __attribute__((visibility(\"default\")))\n\n", max(o.Threads, 1), scratch(p))
	b.WriteString(poolSource)
	b.WriteByte('\n')
	for _, k := range p.Kernels {
		fmt.Fprintf(&b, "%s;\n", Signature(k))
	}
	for _, k := range p.Kernels {
		if k.ParallelLoop() == nil {
			continue
		}
		var args []string
		for i := range k.Params {
			args = append(args, fmt.Sprintf("a[%d]", i))
		}
		fmt.Fprintf(&b, "static void r_%s(void *const *a, i64 lo, i64 hi) { %s(%s, lo, hi); }\n", KernelName(k), KernelName(k), strings.Join(args, ", "))
	}
	signature(&b, p, name)
	weights(&b, p, name)
	run(&b, p, name)
	return b.String()
}

func signature(b *strings.Builder, p *program.Program, name string) {
	table := func(kind string, ps []program.Port) {
		n := len(ps)
		fmt.Fprintf(b, "\nstatic const struct { const char *name; int type, rank; int64_t shape[%d]; } %s_ports[%d] = {\n", maxRank(ps), kind, max(n, 1))
		for _, q := range ps {
			dims := make([]string, len(q.Shape))
			for i, d := range q.Shape {
				dims[i] = fmt.Sprint(d)
			}
			if len(dims) == 0 {
				dims = []string{"0"}
			}
			fmt.Fprintf(b, "  {%s, %d, %d, {%s}},\n", Quote(q.Name), q.Type, len(q.Shape), strings.Join(dims, ", "))
		}
		fmt.Fprintf(b, "};\nAPI int %[1]s_%[2]s_count(void) { return %[3]d; }\n", name, kind, n)
		for _, f := range []struct{ typ, get string }{{"const char *", "name"}, {"int ", "type"}, {"int ", "rank"}, {"const int64_t *", "shape"}} {
			fmt.Fprintf(b, "API %s%s_%s_%s(int i) { return i < 0 || i >= %d ? 0 : %s_ports[i].%s; }\n", f.typ, name, kind, f.get, n, kind, f.get)
		}
	}
	table("input", p.Inputs)
	table("output", p.Outputs)
}

func maxRank(ps []program.Port) int {
	n := 1
	for _, q := range ps {
		n = max(n, len(q.Shape))
	}
	return n
}

func weights(b *strings.Builder, p *program.Program, name string) {
	fmt.Fprintf(b, `
static const char *W;
static int load_weights(const char *path) {
  enum { SIZE = %d };
  char beside[4096];
  struct stat st;
  if (W || !SIZE) return 0;
  if (!path) {
    Dl_info d;
    const char *slash;
    if (!dladdr((void *)load_weights, &d) || !d.dli_fname) return 1;
    slash = strrchr(d.dli_fname, '/');
    size_t n = slash ? (size_t)(slash - d.dli_fname) + 1 : 0;
    if (n + sizeof "weights.bin" > sizeof beside) return 1;
    memcpy(beside, d.dli_fname, n);
    memcpy(beside + n, "weights.bin", sizeof "weights.bin");
    path = beside;
  }
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 1;
  void *m = fstat(fd, &st) || st.st_size != SIZE ? MAP_FAILED : mmap(0, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (m == MAP_FAILED) return 1;
  W = m;
  return 0;
}
static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;
API int %[2]s_load(const char *path) {
  pthread_mutex_lock(&load_lock);
  int r = load_weights(path);
  pthread_mutex_unlock(&load_lock);
  return r;
}
__attribute__((destructor)) static void unload(void) { if (W) munmap((void *)W, %[1]d); }
API void %[2]s_set_threads(int n) { set_threads(n); }
API size_t %[2]s_workspace_size(void) { return %[3]d + (size_t)pool.threads * LATHE_SCRATCH; }
`, p.Weights, name, p.Workspace)
}

// stepsPerFunction keeps functions of a size that compilers digest.
const stepsPerFunction = 400

func run(b *strings.Builder, p *program.Program, name string) {
	fmt.Fprintf(b, "\nstatic void (*trace)(int, int);\nAPI void %s_set_trace(void (*f)(int, int)) { trace = f; }\n", name)
	parts := 0
	for i := 0; i < len(p.Steps); i += stepsPerFunction {
		fmt.Fprintf(b, "static __attribute__((noinline)) void steps%d(const char *const *in, char *const *out, char *ws) {\n  const char *const w = W;\n  (void)in; (void)out; (void)ws; (void)w;\n", parts)
		for j, s := range p.Steps[i:min(i+stepsPerFunction, len(p.Steps))] {
			step(b, i+j, s)
		}
		b.WriteString("}\n")
		parts++
	}
	fmt.Fprintf(b, "API int %s_run(const void *const *inputs, void *const *outputs, void *workspace) {\n  if (!W && %s_load(0)) return 1;\n  lathe_scratch = (char *)workspace + %d;\n", name, name, p.Workspace)
	for i := range parts {
		fmt.Fprintf(b, "  steps%d((const char *const *)inputs, (char *const *)outputs, workspace);\n", i)
	}
	b.WriteString("  return 0;\n}\n")
}

func step(b *strings.Builder, i int, s program.Step) {
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
	fmt.Fprintf(b, "  if (__builtin_expect(trace != 0, 0)) trace(%d, 1);\n", i)
	if f := s.Kernel.ParallelLoop(); f != nil {
		fmt.Fprintf(b, "  { void *a[] = {%s}; region(r_%s, a, %d); }\n", strings.Join(args, ", "), n, f.Var.N)
	} else {
		fmt.Fprintf(b, "  %s(%s, 0, 0);\n", n, strings.Join(args, ", "))
	}
	fmt.Fprintf(b, "  if (__builtin_expect(trace != 0, 0)) trace(%d, 0);\n", i)
}
