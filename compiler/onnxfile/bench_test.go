package onnxfile

import (
	"path/filepath"
	"testing"

	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
)

// Reading a model of 14 MB: time, and memory beside the mapped file.
func BenchmarkRead(b *testing.B) {
	p := filepath.Join("..", "..", "..", "shared", "models", "mobilenetv2-fp32", "model.onnx")
	if _, err := Read(p, Options{}); err != nil {
		b.Skip(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		m, err := Read(p, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// Writing it into memory.
func BenchmarkBytes(b *testing.B) {
	p := filepath.Join("..", "..", "..", "shared", "models", "mobilenetv2-fp32", "model.onnx")
	m, err := Read(p, Options{})
	if err != nil {
		b.Skip(err)
	}
	mp, err := (&writer{m: m}).model()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(pb.Size(mp)))
	for b.Loop() {
		if _, err := m.Bytes(); err != nil {
			b.Fatal(err)
		}
	}
}
