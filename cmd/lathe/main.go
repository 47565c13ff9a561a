// Command lathe compiles ONNX models to artifacts that run without it.
package main

import (
	"os"

	"github.com/lathe-ml/lathe/cmd/internal/cli"
	"github.com/lathe-ml/lathe/cmd/internal/ui"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], ui.System()))
}
