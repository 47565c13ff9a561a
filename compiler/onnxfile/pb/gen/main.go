// Command gen writes messages_gen.go from onnx.txt. Run it from the module
// root: go run ./compiler/onnxfile/pb/gen
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/lathe-ml/lathe/compiler/onnxfile/pb/gen/source"
)

const dir = "compiler/onnxfile/pb"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run() error {
	text, err := os.ReadFile(filepath.Join(dir, "onnx.txt"))
	if err != nil {
		return err
	}
	out, err := source.Generate(string(text))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "messages_gen.go"), out, 0o666)
}
