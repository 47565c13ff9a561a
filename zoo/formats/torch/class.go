package torch

import (
	"fmt"
	"strings"
)

// knownClasses are the globals that checkpoints are made of, by module. All are
// data: even here nothing is called.
var knownClasses = map[string]string{
	"collections": "OrderedDict defaultdict deque Counter",
	"builtins":    "set frozenset complex bytearray bytes getattr slice range object int float str bool list dict tuple",
	"argparse":    "Namespace",
	"types":       "SimpleNamespace",
	"copyreg":     "_reconstructor",
	"_codecs":     "encode",
	"_io":         "BytesIO",
	"datetime":    "datetime date time timedelta timezone",
	"pathlib":     "PosixPath PurePosixPath WindowsPath PureWindowsPath",
	"decimal":     "Decimal",
	"fractions":   "Fraction",
	"uuid":        "UUID",

	"numpy":                  "dtype ndarray bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64",
	"numpy.core.multiarray":  "_reconstruct scalar",
	"numpy._core.multiarray": "_reconstruct scalar",
	"numpy.core.numeric":     "_frombuffer",
	"numpy._core.numeric":    "_frombuffer",
	"numpy.random._pickle":   "__generator_ctor __bit_generator_ctor __randomstate_ctor",

	"torch": "Size device Tensor Generator UntypedStorage strided sparse_coo sparse_csr contiguous_format preserve_format channels_last" +
		" per_tensor_affine per_channel_affine qint8 quint8 qint32 half float double long int short char",
	"torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter _rebuild_parameter_with_state" +
		" _rebuild_qtensor _rebuild_sparse_tensor _rebuild_sparse_csr_tensor _rebuild_device_tensor_from_numpy _rebuild_device_tensor_from_cpu_tensor" +
		" _rebuild_meta_tensor_no_storage _rebuild_wrapper_subclass _rebuild_nested_tensor",
	"torch._tensor":                             "_rebuild_from_type_v2",
	"torch.storage":                             "UntypedStorage TypedStorage _UntypedStorage _TypedStorage",
	"torch.nn.parameter":                        "Parameter Buffer",
	"torch.serialization":                       "_get_layout",
	"torch.distributed._tensor":                 "DTensor",
	"torch.distributed._tensor.api":             "DTensor",
	"torch.distributed._tensor.placement_types": "DTensorSpec TensorMeta Shard Replicate _Partial Partial",
	"torch.distributed._tensor.device_mesh":     "DeviceMesh",
	"torch.distributed.device_mesh":             "DeviceMesh",
	"torch.distributed.tensor":                  "DTensor",
	"torch.distributed.tensor._dtensor_spec":    "DTensorSpec TensorMeta",
	"torch.distributed.tensor.placement_types":  "Shard Replicate Partial",

	"torch.distributed.checkpoint.metadata": "Metadata TensorStorageMetadata BytesStorageMetadata ChunkStorageMetadata TensorProperties MetadataIndex" +
		" _MEM_FORMAT_ENCODING StorageMeta",
	"torch.distributed.checkpoint.filesystem": "_StorageInfo _StoragePrefix",
	"torch.distributed._shard.checkpoint.metadata": "Metadata TensorStorageMetadata BytesStorageMetadata ChunkStorageMetadata MetadataIndex" +
		" ShardedTensorStorageMetadata",
	"torch.distributed._shard.checkpoint.filesystem":   "_StorageInfo",
	"torch.distributed._shard.sharded_tensor.metadata": "TensorProperties MEM_FORMAT_ENCODING",

	"deepspeed.runtime.zero.config":               "ZeroStageEnum",
	"deepspeed.runtime.zero.offload_config":       "OffloadDeviceEnum",
	"deepspeed.runtime.fp16.loss_scaler":          "LossScaler DynamicLossScaler LossScalerBase",
	"deepspeed.utils.tensor_fragment":             "fragment_address",
	"deepspeed.checkpoint.universal_checkpoint":   "SubparamShape",
	"deepspeed.runtime.zero.partition_parameters": "ZeroParamStatus ZeroParamType",
	"megatron.core.enums":                         "ModelType",
	"megatron.model.enums":                        "ModelType LayerType AttnType AttnMaskType PositionEmbeddingType",
	"megatron.enums":                              "ModelType LayerType AttnType AttnMaskType PositionEmbeddingType",
	"megatron.legacy.model.enums":                 "ModelType LayerType AttnType AttnMaskType PositionEmbeddingType",
	"megatron.core.transformer.enums":             "ModelType LayerType AttnType AttnMaskType AttnBackend CudaGraphScope",
	"megatron.core.rerun_state_machine":           "RerunDiagnostic RerunMode RerunState",
	"megatron.core.optimizer.optimizer_config":    "OptimizerConfig",
	"megatron.core.dist_checkpointing.mapping":    "ShardedObject",
	"transformers.trainer_utils":                  "IntervalStrategy SchedulerType HubStrategy SaveStrategy",
	"accelerate.utils.dataclasses":                "DistributedType DeepSpeedPlugin",
}

// enumClasses are those of which getattr may name a member. Python 3.11 pickles
// enum members as getattr(class, name); anywhere else getattr is a way to reach
// code and is refused.
var enumClasses = map[string]bool{
	"deepspeed.runtime.zero.config.ZeroStageEnum":                          true,
	"deepspeed.runtime.zero.offload_config.OffloadDeviceEnum":              true,
	"deepspeed.runtime.zero.partition_parameters.ZeroParamStatus":          true,
	"deepspeed.runtime.zero.partition_parameters.ZeroParamType":            true,
	"torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING":           true,
	"torch.distributed._shard.sharded_tensor.metadata.MEM_FORMAT_ENCODING": true,
	"megatron.core.enums.ModelType":                                        true,
	"megatron.model.enums.ModelType":                                       true,
	"megatron.model.enums.LayerType":                                       true,
	"megatron.model.enums.AttnType":                                        true,
	"megatron.model.enums.AttnMaskType":                                    true,
	"megatron.model.enums.PositionEmbeddingType":                           true,
	"megatron.core.transformer.enums.ModelType":                            true,
	"megatron.core.transformer.enums.LayerType":                            true,
	"megatron.core.transformer.enums.AttnType":                             true,
	"megatron.core.transformer.enums.AttnMaskType":                         true,
	"megatron.core.transformer.enums.AttnBackend":                          true,
	"megatron.core.transformer.enums.CudaGraphScope":                       true,
	"megatron.core.rerun_state_machine.RerunDiagnostic":                    true,
	"megatron.core.rerun_state_machine.RerunMode":                          true,
	"megatron.core.rerun_state_machine.RerunState":                         true,
	"transformers.trainer_utils.IntervalStrategy":                          true,
	"transformers.trainer_utils.SchedulerType":                             true,
	"transformers.trainer_utils.HubStrategy":                               true,
	"transformers.trainer_utils.SaveStrategy":                              true,
	"accelerate.utils.dataclasses.DistributedType":                         true,
}

// refusedModules have no business in a checkpoint: a file that names them is an
// attack on readers that execute pickle, and carrying it on would pass the
// attack to the next reader. The modules below them are refused too.
var refusedModules = []string{
	"os", "posix", "nt", "subprocess", "sys", "shutil", "socket", "pty", "ctypes", "_ctypes", "importlib", "imp", "runpy",
	"code", "codeop", "pdb", "bdb", "timeit", "cProfile", "profile", "trace", "webbrowser", "commands", "popen2",
	"multiprocessing", "asyncio", "http", "httplib", "urllib", "urllib2", "requests", "aiohttp", "ftplib", "smtplib", "telnetlib",
	"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "operator", "_operator", "pip",
	"setuptools", "distutils", "pkgutil", "zipimport", "signal", "tempfile", "inspect", "gc", "_posixsubprocess", "nturl2path",
	"torch.hub", "torch.jit", "torch.utils.cpp_extension", "torch.utils._config_module", "numpy.testing", "numpy.distutils", "numpy.f2py",
}

// refusedNames are single functions that are refused in modules that are not.
var refusedNames = map[string]bool{
	"torch.load":                                true,
	"torch.serialization.load":                  true,
	"torch.storage._load_from_bytes":            true,
	"torch.distributed.rpc.rpc_sync":            true,
	"torch.fx.graph_module.reduce_graph_module": true,
	"numpy.load":                                true,
	"types.FunctionType":                        true,
	"types.CodeType":                            true,
	"types.LambdaType":                          true,
	"types.MethodType":                          true,
}

// pythonTwoNames maps the names of Python 2, which protocols below 3 use.
var pythonTwoNames = map[Class]Class{
	{"__builtin__", "unicode"}:    {"builtins", "str"},
	{"__builtin__", "long"}:       {"builtins", "int"},
	{"__builtin__", "xrange"}:     {"builtins", "range"},
	{"__builtin__", "basestring"}: {"builtins", "str"},
}

// canonical is the class under its Python 3 name.
func canonical(module, name string) Class {
	if c, ok := pythonTwoNames[Class{module, name}]; ok {
		return c
	}
	switch module {
	case "__builtin__":
		module = "builtins"
	case "copy_reg":
		module = "copyreg"
	}
	return Class{module, name}
}

// known reports whether a class is on the allow-list.
func known(c Class) bool {
	if c.Module == "torch" {
		if _, ok := dtypeByName(c.Name); ok {
			return true
		}
		if _, ok := storageClassByName(c.Name); ok {
			return true
		}
	}
	for _, n := range strings.Fields(knownClasses[c.Module]) {
		if n == c.Name {
			return true
		}
	}
	return false
}

// admit says whether a class may be named at all.
func admit(c Class, strict bool) error {
	if known(c) {
		return nil
	}
	full := c.Module + "." + c.Name
	if c.Module == "builtins" || c.Module == "types" || refusedNames[full] {
		return fmt.Errorf("pickle names %s, which is refused: it is code, not data", full)
	}
	for _, m := range refusedModules {
		if c.Module == m || strings.HasPrefix(c.Module, m+".") {
			return fmt.Errorf("pickle names %s, which is refused: it is code, not data", full)
		}
	}
	if strict {
		return fmt.Errorf("pickle names %s, which is not on the list of known classes", full)
	}
	return nil
}
