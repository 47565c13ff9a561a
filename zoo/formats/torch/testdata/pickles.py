# Without arguments: prints one value as pickled by Python in protocols 0 to 5.
# With "check": loads pickles from standard input and compares them with it.
import argparse, collections, pickle, sys

shared = ["shared", 1]
value = {
    "ints": [0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**2000, -(2**2000)],
    "floats": [0.0, -0.0, 1.5, 1e300, -1e-300, 0.1, float("inf")],
    "text": ["", "abc", "\u00e9\u4e2d\U0001f600", "line\nbreak\\u0041\t'\"", "x" * 300, "y" * 70000],
    "bytes": [b"", b"\x00\xff\x80abc", bytes(range(256)) * 2, bytearray(b"qq\xff")],
    "flags": [True, False, None],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((), ((),))],
    "sets": [set(), {1}, frozenset(), frozenset([(1, "a")])],
    "complex": [1 + 2j, -0.5j],
    "shared": [shared, shared, {"again": shared}],
    "many": list(range(3000)),
    "big dict": {i: str(i) for i in range(2500)},
    "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
    "default": collections.defaultdict(list, {"k": [1]}),
    "deque": collections.deque([1, 2, 3]),
    "counter": collections.Counter("aab"),
    "ns": argparse.Namespace(lr=0.1, names=["a"], inner=argparse.Namespace(x=None)),
    (1, ("t", None)): "tuple key", 2.5: "float key", True: "bool key", None: "none key",
}


def text(v):
    return repr(v)


if len(sys.argv) == 1:
    for p in range(6):
        print(p, pickle.dumps(value, p).hex())
else:
    n = 0
    for line in sys.stdin:
        got = pickle.loads(bytes.fromhex(line.strip()))
        if text(got) != text(value) or got["shared"][0] is not got["shared"][2]["again"]:
            for k in value:
                if k not in got or text(got[k]) != text(value[k]):
                    print("differs:", k, text(got.get(k))[:200])
            sys.exit("pickle %d differs" % n)
        n += 1
    print(n, "equal")
