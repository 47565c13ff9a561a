package pb

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/onnxfile/pb/gen/source"
	"github.com/lathe-ml/lathe/internal/shared"
	"google.golang.org/protobuf/encoding/protowire"
)

func TestGeneratedFileIsCurrent(t *testing.T) {
	text, err := os.ReadFile("onnx.txt")
	if err != nil {
		t.Fatal(err)
	}
	want, err := source.Generate(string(text))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("messages_gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("messages_gen.go does not follow from onnx.txt; run go run ./compiler/onnxfile/pb/gen in the module root")
	}
}

// Every real file that its writer wrote in field order comes back byte for byte.
func TestReencodingIsIdentical(t *testing.T) {
	n, differ := 0, 0
	err := filepath.WalkDir(shared.Dir(t), func(p string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, ".onnx") {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		m := &ModelProto{}
		if err := Unmarshal(b, m); err != nil {
			t.Errorf("%s: %v", p, err)
			return nil
		}
		n++
		if got := Marshal(m); !bytes.Equal(got, b) {
			differ++
			t.Logf("%s: %d bytes in, %d out", p, len(b), len(got))
			again := &ModelProto{}
			if err := Unmarshal(got, again); err != nil || !bytes.Equal(Marshal(again), got) {
				t.Errorf("%s: the second encoding is not stable: %v", p, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files, %d not in field order", n, differ)
}

func TestUnknownFieldsAndPresenceSurvive(t *testing.T) {
	// NodeProto: input "a"; name present and empty; field 99 varint 5; field 100
	// group with field 1 fixed32.
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	b = protowire.AppendString(b, "a")
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	b = protowire.AppendString(b, "")
	b = protowire.AppendTag(b, 99, protowire.VarintType)
	b = protowire.AppendVarint(b, 5)
	b = protowire.AppendTag(b, 100, protowire.StartGroupType)
	b = protowire.AppendTag(b, 1, protowire.Fixed32Type)
	b = protowire.AppendFixed32(b, 7)
	b = protowire.AppendTag(b, 100, protowire.EndGroupType)
	n := &NodeProto{}
	if err := Unmarshal(b, n); err != nil {
		t.Fatal(err)
	}
	if got := Marshal(n); !bytes.Equal(got, b) {
		t.Errorf("got % x, want % x", got, b)
	}
	var w bytes.Buffer
	if err := Write(&w, n); err != nil || !bytes.Equal(w.Bytes(), b) {
		t.Errorf("Write gave % x, %v", w.Bytes(), err)
	}
}

func TestPackedContraryToDescription(t *testing.T) {
	// ints (8) packed as proto3 writers do: 08·8+2 = 0x42, length 2, values 1 2.
	b := []byte{0x42, 2, 1, 2}
	a := &AttributeProto{}
	if err := Unmarshal(b, a); err != nil || len(a.Ints) != 2 || a.Ints[1] != 2 {
		t.Fatalf("ints %v, %v", a.Ints, err)
	}
	if got := Marshal(a); !bytes.Equal(got, b) {
		t.Errorf("got % x", got)
	}
	// int32_data (5) not packed: 5·8+0 = 0x28; -1 takes ten bytes.
	b = []byte{0x28, 3, 0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}
	x := &TensorProto{}
	if err := Unmarshal(b, x); err != nil || len(x.Int32Data) != 2 || x.Int32Data[1] != -1 {
		t.Fatalf("int32_data %v, %v", x.Int32Data, err)
	}
	if got := Marshal(x); !bytes.Equal(got, b) {
		t.Errorf("got % x", got)
	}
}

func TestDepthIsBounded(t *testing.T) {
	b := []byte{}
	for range 10000 { // OptionalProto.optional_value (7) in itself
		b = append(protowire.AppendVarint([]byte{7<<3 | 2}, uint64(len(b))), b...)
	}
	if err := Unmarshal(b, &OptionalProto{}); err != ErrDepth {
		t.Errorf("got %v, want %v", err, ErrDepth)
	}
	if err := Unmarshal([]byte{7<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0x7f}, &OptionalProto{}); err == nil {
		t.Error("a length beyond the file was accepted")
	}
}

// Two bytes make an empty node of a hundred times that size in memory.
func TestMessageCountIsBounded(t *testing.T) {
	nodes := bytes.Repeat([]byte{1<<3 | 2, 0}, maxMessages+1)
	if err := Unmarshal(nodes, &GraphProto{}); err != ErrCount {
		t.Errorf("got %v, want %v", err, ErrCount)
	}
}
