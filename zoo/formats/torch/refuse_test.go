package torch

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// zipOf packs records with the standard library. Names ending in "!" are
// compressed.
func zipOf(t testing.TB, records ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i+1 < len(records); i += 2 {
		h := &zip.FileHeader{Name: strings.TrimSuffix(records[i], "!"), Method: zip.Store}
		if h.Name != records[i] {
			h.Method = zip.Deflate
		}
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(records[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func refused(t *testing.T, what string, b []byte, want string) {
	t.Helper()
	_, err := decode(b, Options{File: "f.pt"})
	if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "f.pt: ") {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

func TestRefusesPickles(t *testing.T) {
	tensorAt := func(offset, size, stride string) string {
		return "\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ" +
			offset + size + stride + "\x89ccollections\nOrderedDict\n)RtR."
	}
	cases := []struct{ what, pickle, want string }{
		{"os.system", "cos\nsystem\n(X\x04\x00\x00\x00truetR.", "os.system, which is refused"},
		{"posix.system by stack", "\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", "posix.system, which is refused"},
		{"eval", "c__builtin__\neval\n(X\x01\x00\x00\x001tR.", "builtins.eval, which is refused"},
		{"exec", "\x80\x04\x8c\x08builtins\x8c\x04exec\x93.", "builtins.exec, which is refused"},
		{"subprocess", "csubprocess\nPopen\n.", "subprocess.Popen, which is refused"},
		{"torch.load", "ctorch.serialization\nload\n.", "torch.serialization.load, which is refused"},
		{"inst", "(ios\nsystem\n.", "os.system, which is refused"},
		{"getattr", "c__builtin__\ngetattr\nctorch\nTensor\nX\x06\x00\x00\x00numpy_\x86R.", "only members of known enums"},
		{"getattr dunder", "c__builtin__\ngetattr\ncdeepspeed.runtime.zero.config\nZeroStageEnum\nX\x09\x00\x00\x00__class__\x86R.", "only members of known enums"},
		{"call of a result", "cargparse\nNamespace\n)R)R.", "only classes can be"},
		{"new of a function", "ctorch._utils\n_rebuild_tensor_v2\n)\x81.", "is a function"},
		{"persistent module", "(X\x06\x00\x00\x00moduleNNNNtQ.", "only storages are read"},
		{"cyclic list", "]q\x00h\x00a.", "a list that contains itself"},
		{"cyclic dict", "}q\x00K\x01h\x00s.", "a dict that contains itself"},
		{"cyclic object", "cargparse\nNamespace\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.", "contains itself"},
		{"deep", strings.Repeat("]", 2000) + strings.Repeat("a", 1999) + ".", "nests more than"},
		{"ext", "\x82\x01.", "unknown or refused"},
		{"buffer", "\x97.", "unknown or refused"},
		{"text persistent id", "Pabc\n.", "unknown or refused"},
		{"protocol", "\x80\x09N.", "protocol 9"},
		{"empty stack", ".", "empty"},
		{"no mark", "K\x01e.", "no mark"},
		{"mark left", "(K\x01.", "leaves values"},
		{"two values", "K\x01K\x02.", "leaves values"},
		{"memo", "h\x05.", "number 5"},
		{"truncated", "X\xff\xff\x00\x00abc", "middle of an opcode"},
		{"huge string", "\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "middle of an opcode"},
		{"huge long", "\x8b\xff\xff\xff\x7fabc.", "middle of an opcode"},
		{"no stop", "K\x01", "middle of an opcode"},
		{"trailing", "N.N", "goes on"},
		{"list key", "}]K\x01s.", "not hashable"},
		{"odd dict", "(K\x01d.", "no value"},
		{"append to None", "NK\x01a.", "None has no items"},
		{"build of None", "NNb.", "None has no state"},
		{"digits", "I" + strings.Repeat("9", 5000) + "\n.", "digits"},
		{"not a number", "Fabc\n.", "not a number"},
		{"reduce without tuple", "ctorch\nSize\nNR.", "not a tuple"},
		{"tensor outside", tensorAt("K\x01", "K\x02\x85", "K\x01\x85"), "leaves its storage"},
		{"tensor offset", tensorAt("K\x03", "K\x00\x85", "K\x01\x85"), "leaves its storage"},
		{"tensor negative", tensorAt("K\x00", "J\xff\xff\xff\xff\x85", "K\x01\x85"), "negative"},
		{"tensor stride", tensorAt("K\x00", "K\x02\x85", "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85"), "strides"},
		{"tensor size", tensorAt("K\x00", "(\x8a\x05\x00\x00\x00\x00\x01\x8a\x05\x00\x00\x00\x00\x01t", "K\x01K\x01\x86"), "too many"},
		{"lazy conjugate", strings.Replace(tensorAt("K\x00", "K\x02\x85", "K\x01\x85"), ")RtR.", ")R}X\x04\x00\x00\x00conj\x88stR.", 1), "resolve_conj"},
		{"tensor rank", tensorAt("K\x00", "K\x01\x85", ")"), "strides"},
	}
	for _, c := range cases {
		refused(t, c.what, zipOf(t, "a/data.pkl", c.pickle, "a/data/0", "8 bytes!", "a/version", "3\n"), c.want)
	}
	// 60 levels of a pair of the same list: 2^60 paths.
	s := "]q\x00"
	for i := range 60 {
		s += fmt.Sprintf("h%c\x86q%c", i, i+1)
	}
	refused(t, "shared without bound", zipOf(t, "a/data.pkl", s+"."), "expand without bound")
	if _, err := Unpickle([]byte("cmy.module\nThing\n."), Options{Strict: true}); err == nil || !strings.Contains(err.Error(), "my.module.Thing") {
		t.Errorf("strict: %v", err)
	}
	if _, err := Unpickle([]byte("]]]]]."), Options{MaxValues: 3}); err == nil || !strings.Contains(err.Error(), "more than 3 values") {
		t.Errorf("limit: %v", err)
	}
}

// patch changes a file at every place where the old bytes are.
func patch(b []byte, old, new string) []byte {
	return bytes.ReplaceAll(b, []byte(old), []byte(new))
}

func TestRefusesZips(t *testing.T) {
	good, err := encode(NewDict("x", NewTensor(tensor.F32, []int{2}, strings.NewReader("8 bytes!"))), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decode(good, Options{}); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := decode(good[:n], Options{}); err == nil || err.Error() == "" {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(good), err)
		}
	}
	refused(t, "cut", good[:len(good)-5], "truncated")
	refused(t, "no storage", zipOf(t, "a/data.pkl", string(data(t, good)), "a/version", "3\n"), `storage "0" is used but not in the file`)
	refused(t, "short storage", zipOf(t, "a/data.pkl", string(data(t, good)), "a/data/0", "short"), "5 bytes where 8 are needed")
	refused(t, "compressed storage", zipOf(t, "a/data.pkl", string(data(t, good)), "a/data/0!", "8 bytes!"), "compressed")
	refused(t, "traversal", patch(good, "archive/version", "../../../version"[:15]), "leaves its folder")
	refused(t, "absolute", patch(good, "archive/version", "/rchive/version"), "leaves its folder")
	refused(t, "backslash", patch(good, "archive/version", "archive\\version"), "leaves its folder")
	refused(t, "two folders", patch(good, "archive/version", "brchive/version"), "in the folders")
	refused(t, "no folder", zipOf(t, "data.pkl", "N."), "not in a folder")
	refused(t, "twice", zipOf(t, "a/data.pkl", "N.", "a/data.pkl", "N."), "twice")
	refused(t, "no pickle", zipOf(t, "a/version", "3\n"), "no data.pkl")
	refused(t, "TorchScript", zipOf(t, "a/data.pkl", "N.", "a/constants.pkl", "N."), "TorchScript")
	refused(t, "big endian", zipOf(t, "a/data.pkl", "N.", "a/byteorder", "big"), "byte order")
	refused(t, "damaged pickle", patch(good, "_rebuild_tensor_v2", "_rebuild_tensor_v3"), "CRC-32")
	bomb := "X" + string(binary.LittleEndian.AppendUint32(nil, 20<<20)) + strings.Repeat("\x00", 20<<20) + "."
	refused(t, "bomb", zipOf(t, "a/data.pkl!", bomb), "no real file does")
	if _, err := decode(zipOf(t, "a/data.pkl", bomb), Options{MaxPickle: 1 << 20}); err == nil || !strings.Contains(err.Error(), "more than the 1048576") {
		t.Errorf("large pickle: %v", err)
	}
	if f, err := decode(zipOf(t, "a/data.pkl!", "K\x07."), Options{}); err != nil || f.Root != int64(7) {
		t.Errorf("a compressed pickle, which torch accepts: %v", err)
	}
	var commented bytes.Buffer
	z := zip.NewWriter(&commented)
	if w, err := z.Create("a/data.pkl"); err != nil {
		t.Fatal(err)
	} else if _, err := w.Write([]byte("K\x07.")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(z.SetComment("a comment PK\x05\x06 of a zip"), z.Close()); err != nil {
		t.Fatal(err)
	}
	if f, err := decode(commented.Bytes(), Options{}); err != nil || f.Root != int64(7) {
		t.Errorf("a zip with a comment: %v", err)
	}
	// The directory says that two entries share their bytes.
	over := bytes.Clone(good)
	at := bytes.LastIndex(over, []byte("archive/data/0")) - lenCentral
	binary.LittleEndian.PutUint32(over[at+42:], 0)
	refused(t, "overlap", over, "overlaps")
	binary.LittleEndian.PutUint32(over[at+42:], uint32(len(over)))
	refused(t, "outside", over, "outside")
	// A flipped payload byte, which torch.load does not see.
	flip := patch(good, "8 bytes!", "9 bytes!")
	f, err := decode(flip, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.VerifySums(); err == nil || !strings.Contains(err.Error(), "archive/data/0") {
		t.Errorf("flipped byte: %v", err)
	}
	for what, b := range map[string]string{"short": "PK", "text": "hello, world, this is no checkpoint", "tar": strings.Repeat("x", 257) + "ustar" + strings.Repeat("x", 300)} {
		if _, err := decode([]byte(b), Options{}); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}

// data is data.pkl of a file.
func data(t *testing.T, b []byte) []byte {
	t.Helper()
	f, err := decode(b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.records[0].load(bytes.NewReader(b), 1<<20)
	if err != nil || crc32.ChecksumIEEE(out) != f.records[0].crc {
		t.Fatal(err)
	}
	return out
}

// TestHostilePickleMemory: a pickle of 1 MiB that makes a value per byte must
// not take more than a bounded multiple of it.
func TestHostilePickleMemory(t *testing.T) {
	for _, op := range []string{"]", "}", "N", "(", "]q\x00", ")", "]2"} {
		b := []byte(strings.Repeat(op, (1<<20)/len(op)))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Unpickle(b, Options{})
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%q is accepted", op)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 400<<20 {
			t.Errorf("1 MiB of %q allocates %d MiB", op, used>>20)
		}
	}
}

// seed is a small value with a bit of everything: large seeds make the fuzzer
// spend its time on shrinking them.
func seed() Value {
	x := NewTensor(tensor.F32, []int{2, 1}, strings.NewReader("8 bytes!"))
	return NewDict("x", NewList(x, x, int64(-7), 1.5, nil, true), int64(1), NewTuple(Size{2}, Bytes("b")),
		"o", NewObject("argparse", "Namespace", NewDict("a", &Set{Items: []Value{"s"}})))
}

func FuzzOpen(f *testing.F) {
	b, err := encode(seed(), WriteOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(zipOf(f, "a/data.pkl", "N."))
	f.Add(append([]byte{0x80, 2}, legacyHeadBytes[2:]...))
	f.Fuzz(func(t *testing.T, b []byte) { tryFile(t, b) })
}

func FuzzUnpickle(f *testing.F) {
	for _, p := range []int{2, 4} {
		b, _, err := Pickle(seed(), p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("(lp0\nI1\nI01\naF1.5\naS'a\\x00b'\nag0\n."))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Unpickle(b, Options{})
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without text")
			}
			return
		}
		again, _, err := Pickle(v, protocolFor(v))
		if err != nil {
			return // a class name with a line break has no place in protocol 2
		}
		if _, err := Unpickle(again, Options{}); err != nil {
			t.Errorf("written again: %v", err)
		}
	})
}

// tryFile opens any bytes: an error with a text, or a file whose tensors can
// all be read.
func tryFile(t *testing.T, b []byte) {
	t.Helper()
	x, err := decode(b, Options{})
	if err != nil {
		if err.Error() == "" {
			t.Error("an error without text")
		}
		return
	}
	tensors, err := Tensors(x.Root)
	if err != nil {
		t.Error(err)
	}
	for _, y := range tensors {
		w := y.Tensor.Ref("")
		if w.Bytes() > 1<<20 {
			continue
		}
		if _, err := y.Tensor.Load(); err != nil {
			t.Errorf("%s: %v", y.Path, err)
		}
	}
}
