
/* The functions of model.h. */
API int NAME(run)(const void *const *inputs, void *const *outputs, void *workspace) { return lathe_run_(inputs, outputs, workspace); }
API int NAME(load)(const char *path) { return lathe_load_(path); }
API void NAME(set_threads)(int n) { lathe_set_threads_(n); }
API int NAME(threads)(void) { return lathe_get_threads_(); }
API int NAME(set_pin)(const char *cpus) { return lathe_set_pin_(cpus); }
API size_t NAME(workspace_size)(void) { return lathe_workspace_size_(); }
API void NAME(set_trace)(void (*f)(int, int)) { lathe_set_trace_(f); }
API const char *NAME(error)(void) { return lathe_error_(); }
API int NAME(variant)(void) { return lathe_variant_(); }
API int NAME(variant_count)(void) { return lathe_artifact.count; }
API const char *NAME(variant_name)(int i) { return i < 0 || i >= lathe_artifact.count ? 0 : variants[i].cpu; }
