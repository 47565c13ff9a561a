package onnxfile

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// outside makes small's initializer lie in another file.
func outside(location string, more ...*pb.StringStringEntryProto) *pb.ModelProto {
	m := small()
	w := m.Graph.Initializer[0]
	w.RawData, w.DataLocation = nil, pb.DataLocation_EXTERNAL
	w.ExternalData = append([]*pb.StringStringEntryProto{entry("location", location)}, more...)
	return m
}

func put(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

var oneTwo = []byte{0, 0, 128, 63, 0, 0, 0, 64} // float32 1, 2

func TestExternalDataIsRead(t *testing.T) {
	dir := t.TempDir()
	data := append([]byte("12345678"), oneTwo...)
	put(t, filepath.Join(dir, "sub", "w.bin"), data)
	sum := sha1.Sum(data)
	p := put(t, filepath.Join(dir, "m.onnx"), pb.Marshal(outside("sub/w.bin", entry("offset", "8"), entry("length", "8"),
		entry("checksum", hex.EncodeToString(sum[:])))))
	m, err := Read(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := m.Graph.Inits[0].Const
	if got := tensor.As[float32](w); got[0] != 1 || got[1] != 2 {
		t.Errorf("read %v", got)
	}
	if &w.Bytes()[0] != &m.maps[0].data[8] {
		t.Error("the tensor was copied out of the mapped file")
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestExternalDataStaysInTheFolder(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "model")
	secret := put(t, filepath.Join(top, "secret.bin"), oneTwo)
	put(t, filepath.Join(dir, "inside.bin"), oneTwo)
	if err := os.Symlink(secret, filepath.Join(dir, "link.bin")); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	if err := os.Symlink(top, filepath.Join(dir, "up")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("inside.bin", filepath.Join(dir, "near.bin")); err != nil {
		t.Fatal(err)
	}
	for _, loc := range []string{"../secret.bin", secret, "link.bin", "up/secret.bin", "a/../../secret.bin", `..\secret.bin`} {
		p := put(t, filepath.Join(dir, "m.onnx"), pb.Marshal(outside(loc)))
		_, err := Read(p, Options{})
		if err == nil || !strings.Contains(err.Error(), "lies outside the model's folder") || fault.KindOf(err) != fault.BadModel {
			t.Errorf("%s: %v", loc, err)
		}
	}
	for _, loc := range []string{"inside.bin", "near.bin"} {
		p := put(t, filepath.Join(dir, "m.onnx"), pb.Marshal(outside(loc)))
		if _, err := Read(p, Options{}); err != nil {
			t.Errorf("%s: %v", loc, err)
		}
	}
}

func TestExternalDataThatDoesNotFit(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "w.bin"), oneTwo)
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		loc  string
		more []*pb.StringStringEntryProto
		want string
	}{
		{"w.bin", []*pb.StringStringEntryProto{entry("offset", "1")}, `external data file "w.bin" has 8 bytes, the tensor lies at 1 and is 8 long`},
		{"w.bin", []*pb.StringStringEntryProto{entry("offset", "9223372036854775807")}, `external data file "w.bin" has 8 bytes, the tensor lies at 9223372036854775807 and is 8 long`},
		{"w.bin", []*pb.StringStringEntryProto{entry("offset", "-1")}, `external data has the offset "-1"`},
		{"w.bin", []*pb.StringStringEntryProto{entry("length", "4")}, `external data has 4 bytes, float of 2 elements needs 8`},
		{"w.bin", []*pb.StringStringEntryProto{entry("length", "eight")}, `external data has the length "eight"`},
		{"w.bin", []*pb.StringStringEntryProto{entry("checksum", "00")}, `external data file "w.bin" has the checksum`},
		{"", nil, `external data has no location`},
		{"none.bin", nil, `external data: cannot be read: no such file or directory`},
		{"folder", nil, `external data: is not a regular file`},
	} {
		p := put(t, filepath.Join(dir, "m.onnx"), pb.Marshal(outside(c.loc, c.more...)))
		_, err := Read(p, Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.BadModel {
			t.Errorf("%s: got %v, want %s", c.loc, err, c.want)
		}
	}
}

// Moved out, read, moved in again: the same file.
func TestExternalDataIsWritten(t *testing.T) {
	dir := t.TempDir()
	want := pb.Marshal(small())
	m, err := ReadBytes(want, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(dir, "out.onnx")
	if err := m.Write(p, WriteOptions{External: 8, Checksum: true}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(p + ".data"); err != nil || !bytes.Equal(b, oneTwo) {
		t.Errorf("data file: % x, %v", b, err)
	}
	n, err := Read(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if ir.Print(n.Graph) != ir.Print(m.Graph) {
		t.Error("the graph changed")
	}
	// A model with external data keeps it, under the new name.
	q := filepath.Join(dir, "again.onnx")
	if err := n.Write(q, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	o, err := Read(q, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(q + ".data"); err != nil || !bytes.Equal(b, oneTwo) {
		t.Errorf("data file: % x, %v", b, err)
	}
	if err := o.Write(q, WriteOptions{External: -1}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(q); err != nil || !bytes.Equal(b, want) {
		t.Errorf("written into one file: %d bytes, want %d, %v", len(b), len(want), err)
	}
	names, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(names) > 0 {
		t.Errorf("temporaries left: %v", names)
	}
	if err := o.Write(q, WriteOptions{External: 1, DataFile: "../x"}); !fault.Is(err, fault.Usage) {
		t.Errorf("a data file outside the folder: %v", err)
	}
}

// A data file of more than 2 GB, sparse on disk, is read where it is mapped.
func TestExternalDataBeyondTwoGigabytes(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "big.bin"))
	if err != nil {
		t.Fatal(err)
	}
	const at = 5 << 30
	if _, err := f.WriteAt(oneTwo, at); err != nil {
		t.Skip("no room for a sparse file:", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	mp := outside("big.bin", entry("offset", "5368709120"))
	mp.Graph.Initializer = append(mp.Graph.Initializer, &pb.TensorProto{
		Name: "huge", DataType: 1, Dims: []int64{1 << 30}, DataLocation: pb.DataLocation_EXTERNAL,
		ExternalData: []*pb.StringStringEntryProto{entry("location", "big.bin"), entry("length", "4294967296")},
	})
	m, err := Read(put(t, filepath.Join(dir, "m.onnx"), pb.Marshal(mp)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if w := tensor.As[float32](m.Graph.Inits[0].Const); w[1] != 2 {
		t.Errorf("read %v", w)
	}
	if n := len(m.Graph.Inits[1].Const.Bytes()); n != 1<<32 {
		t.Errorf("huge has %d bytes", n)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
