/* What the runtime is told of a model, in tables. */
#include <stddef.h>
#include <stdint.h>

/* An instruction set that code needs of a CPU, and where the CPU tells it. */
struct need { const char *name; uint32_t leaf, sub; int reg, bit; uint32_t state; int aux; };

/* The code for one CPU. */
struct variant {
  const char *cpu;
  size_t workspace, scratch;
  void (*steps)(const void *const *in, void *const *out, char *ws, const char *w);
  const struct need *needs;
  int n;
};

struct artifact {
  const struct variant *variants;
  int count;       /* of them, the widest CPU first */
  size_t weights;  /* bytes of weights.bin */
  int threads;
  const char *pin; /* 0: threads go where the system puts them */
};

#define HIDDEN __attribute__((visibility("hidden")))
extern const struct artifact lathe_artifact HIDDEN;

/* The runtime's side of the functions of model.h. Their names end in a way that
   no function of a model does, whatever it is called. */
int lathe_run_(const void *const *inputs, void *const *outputs, void *workspace) HIDDEN;
int lathe_load_(const char *path) HIDDEN;
void lathe_set_threads_(int n) HIDDEN;
int lathe_get_threads_(void) HIDDEN;
int lathe_set_pin_(const char *cpus) HIDDEN;
size_t lathe_workspace_size_(void) HIDDEN;
void lathe_set_trace_(void (*f)(int, int)) HIDDEN;
const char *lathe_error_(void) HIDDEN;
int lathe_variant_(void) HIDDEN;
