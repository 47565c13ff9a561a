# Loads pairs of files with torch.load and compares them: structure, types,
# tensors, strides and shared storages. Classes that are not installed are
# replaced by empty ones.
import argparse, collections, ctypes, enum, importlib.abc, importlib.machinery, json, sys, types
import torch

ENUMS = {"ZeroStageEnum": dict(disabled=0, optimizer_states=1, gradients=2, weights=3)}


class Stub(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ENUMS:
            v = enum.IntEnum(name, ENUMS[name])
        else:
            v = type(name, (), {})
        v.__module__ = self.__name__
        setattr(self, name, v)
        return v


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("deepspeed", "megatron"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return Stub(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(Finder())


def same(a, b, path, ptrs):
    if type(a) is not type(b):
        sys.exit("%s: %s and %s" % (path, type(a), type(b)))
    if isinstance(a, torch.Tensor):
        ok = a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride() and a.storage_offset() == b.storage_offset() \
            and a.requires_grad == b.requires_grad and a.storage().size() == b.storage().size() \
            and a.detach().contiguous().numpy_bytes() == b.detach().contiguous().numpy_bytes()
        if not ok:
            sys.exit("%s: tensors differ" % path)
        if a.storage().size():
            p, q = a.storage().data_ptr(), b.storage().data_ptr()
            if ptrs[0].setdefault(p, q) != q or ptrs[1].setdefault(q, p) != p:
                sys.exit("%s: storages are shared differently" % path)
    elif isinstance(a, dict):
        if list(a.keys()) != list(b.keys()):
            sys.exit("%s: keys differ" % path)
        for k in a:
            same(a[k], b[k], "%s/%s" % (path, k), ptrs)
        same(getattr(a, "__dict__", None), getattr(b, "__dict__", None), path + "/attributes", ptrs)
    elif isinstance(a, (list, tuple)):
        if len(a) != len(b):
            sys.exit("%s: lengths differ" % path)
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, "%s/%d" % (path, i), ptrs)
    elif type(a).__module__ == "numpy":
        if repr(a) != repr(b):
            sys.exit("%s: %r and %r" % (path, a, b))
    elif hasattr(a, "__dict__") and not isinstance(a, (enum.Enum, type)):
        same(a.__dict__, b.__dict__, path, ptrs)
    elif a != b:
        sys.exit("%s: %r and %r" % (path, a, b))


def raw(t):
    n = t.numel() * t.element_size()
    return ctypes.string_at(t.data_ptr(), n) if n else b""


torch.Tensor.numpy_bytes = raw
job = json.load(open(sys.argv[1]))
for a, b in job["pairs"]:
    same(torch.load(a), torch.load(b), b, ({}, {}))

o = torch.load(job["odd"])
assert o["x"] is o["again"] and o["x"].storage().data_ptr() == o["flip"].storage().data_ptr()
assert torch.equal(o["flip"], o["x"].t()) and o["p"].requires_grad and not o["p2"].requires_grad
assert o["ints"] == [0, 255, 256, 65535, 65536, -1, 2**31, -2**31, -128, -129, 2**40, -2**40, 2**62, -2**63, 2**63, -2**71, -5 * 2**3000]
assert o["floats"] == (1.5, -0.0, 1e300, 2.0, 3.0) and o["bytes"] == b"\x00\xff\x80z" and o["nobytes"] == b"" and o["bytearray"] == bytearray(b"q")
assert o["size"] == torch.Size([4, 5, 6, 7]) and type(o["size"]) is torch.Size and o["size0"] == torch.Size([])
assert o["complex"] == 1 - 2j and o["dtype"] is torch.bfloat16 and o["set"] == {3, "s"} and o["frozen"] == frozenset([(1, "t")])
assert o["shared"] is o["od"]["k"] is o["ns"].shared and o["od"]._metadata == {"": {"version": 1}}
assert o["many"] == [i**3 - 1000000000 for i in range(2500)]
assert o[7] == "int key" and o[(1, "a")] == "tuple key" and o[True] == "bool key"
assert o["empty"] == [(), [], {}, collections.OrderedDict()] and o["ns"] == argparse.Namespace(a=1, shared=o["shared"])
assert o["dd"] == {"k": [1]} and o["dd"].default_factory is list and o["deque"] == collections.deque([1, 2])
assert o["unicode"] == "\u00e9\u4e2d\U0001f600\n\"'\\" and o["scalar"].shape == () and o["none1"].shape == (0, 3)
assert o["none"] is None and o["yes"] is True and o["no"] is False

# The restricted reader that torch offers for files from strangers.
p = torch.load(job["plain"], weights_only=True)
assert list(p) == ["a", "b", "n"] and p["n"] == [2**40, "s", True, None] and p["b"].numpy_bytes() == b"twelve bytes"
assert torch.equal(p["a"], p["b"][1:5].view(2, 2)) and p["a"].storage().data_ptr() == p["b"].storage().data_ptr()
print("%d files equal" % len(job["pairs"]))
