package csource

import (
	"fmt"
	"strings"

	"github.com/lathe-ml/lathe/compiler/program"
)

// header prints model.h.
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
   set; one for each concurrent caller. It must be aligned to 64 bytes. 0 if no
   variant of the code can run on this CPU. */
size_t %[1]s_workspace_size(void);

/* Runs the model. No memory is allocated. Gives 0, or 1 if the CPU cannot run
   the code or the weights could not be loaded: see error. */
int %[1]s_run(const void *const *inputs, void *const *outputs, void *workspace);

/* Optional: loads the weights from a file (0: weights.bin beside the library);
   run does it at its first call. Gives 0 on success. */
int %[1]s_load(const char *path);

/* What went wrong last, as a sentence; "" if nothing did. */
const char *%[1]s_error(void);

/* Optional: how many threads share the work of a run; 0: one for each CPU that
   the process may use. The environment variable LATHE_THREADS sets it at the
   start. A run takes no more than its share of the CPUs: with several callers
   in the process each has fewer. */
void %[1]s_set_threads(int threads);
int %[1]s_threads(void);

/* Optional: keeps the threads, the calling ones too, each on a CPU of its own:
   "auto", a list such as "0-3,8", or "off". Call it before the first run; the
   environment variable LATHE_PIN does the same. Gives 0, or 1 if the process
   may use none of the CPUs. */
int %[1]s_set_pin(const char *cpus);

/* The code may be there for several CPUs. The best that this one can run is
   taken when the library is loaded; the environment variable LATHE_CPU names
   another. variant is the one that is taken, -1 for none. */
int %[1]s_variant(void);
int %[1]s_variant_count(void);
const char *%[1]s_variant_name(int i);

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

// signature prints the tables of inputs and outputs and what reads them.
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
