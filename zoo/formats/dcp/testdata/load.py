# Reads a distributed checkpoint that the Go test wrote (see grid() there). The
# classes follow torch/distributed/checkpoint/{metadata,filesystem}.py of
# PyTorch 2; items are read by torch.load.
import dataclasses, enum, io, pickle, sys, types
from typing import Any, Optional
import torch

M, F = "torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"
mods = {m: types.ModuleType(m) for m in (M, F)}
sys.modules.update(mods)


def export(module):
    def wrap(c):
        c.__module__ = module
        setattr(mods[module], c.__name__, c)
        return c
    return wrap


@export(M)
class _MEM_FORMAT_ENCODING(enum.Enum):
    TORCH_CONTIGUOUS_FORMAT = 0
    TORCH_CHANNELS_LAST = 1
    TORCH_PRESERVE_FORMAT = 2


@export(M)
@dataclasses.dataclass
class TensorProperties:
    dtype: Any = None
    layout: Any = None
    requires_grad: bool = False

    def __setstate__(self, state):
        self.dtype, self.layout, self.requires_grad, encoding, self.pin_memory = state
        if encoding != _MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT:
            raise ValueError("Invalid torch.memory_format encoding")


@export(M)
@dataclasses.dataclass
class ChunkStorageMetadata:
    offsets: torch.Size
    sizes: torch.Size


@export(M)
@dataclasses.dataclass
class TensorStorageMetadata:
    properties: TensorProperties
    size: torch.Size
    chunks: list


@export(M)
@dataclasses.dataclass
class BytesStorageMetadata:
    pass


@export(M)
@dataclasses.dataclass(frozen=True)
class MetadataIndex:
    fqn: str
    offset: Optional[torch.Size] = None
    index: Optional[int] = dataclasses.field(hash=False, compare=False, default=None)


@export(M)
@dataclasses.dataclass
class Metadata:
    state_dict_metadata: dict
    planner_data: Any = None
    storage_data: Any = None
    storage_meta: Any = None
    version: Optional[str] = None


@export(F)
@dataclasses.dataclass
class _StorageInfo:
    relative_path: str
    offset: int
    length: int
    transform_descriptors: Any = None


root = sys.argv[1]
meta = pickle.load(open(root + "/.metadata", "rb"))


def load(index):
    info = meta.storage_data[index]
    assert info.transform_descriptors is None
    with open(root + "/" + info.relative_path, "rb") as f:
        f.seek(info.offset)
        return torch.load(io.BytesIO(f.read(info.length)))


def tensor(name):
    m = meta.state_dict_metadata[name]
    out = torch.full(m.size, -1, dtype=m.properties.dtype)
    for i, c in enumerate(m.chunks):
        t = load(MetadataIndex(name, c.offsets, i))
        assert type(c.offsets) is torch.Size and t.shape == c.sizes
        v = out
        for d, (o, s) in enumerate(zip(c.offsets, c.sizes)):
            v = v.narrow(d, o, s)
        v.copy_(t)
    return out


w = tensor("layers.0.w")
assert torch.equal(w, torch.arange(56, dtype=torch.float32).view(7, 8)), w
assert meta.state_dict_metadata["layers.0.w"].properties.requires_grad
assert meta.state_dict_metadata["layers.0.w"].properties.layout is torch.strided
assert meta.planner_data["layers.0.w"] == ("layers", 0, "w") and meta.planner_data["args"] == ("args",)
assert tensor("scalar").item() == 1.0 and tensor("scalar").dtype is torch.bfloat16 and tensor("zero").shape == (0, 3)
assert isinstance(meta.state_dict_metadata["step"], BytesStorageMetadata) and load(MetadataIndex("step")) == 3
args = load(MetadataIndex("args"))
assert args["lr"] == 0.5 and args["t"].numpy().tobytes() == b"sixteen bytes..."
print("equal")
