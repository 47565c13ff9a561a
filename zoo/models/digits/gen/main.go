// Command gen trains the digits model and writes it with its samples:
//
//	go run ./zoo/models/digits/gen testdata/models/digits
//
// The result is the same on every machine, byte for byte.
package main

import (
	"fmt"
	"os"

	"github.com/lathe-ml/lathe/zoo/models/digits"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen FOLDER")
		os.Exit(2)
	}
	m := digits.Train(digits.Seed, digits.Steps, digits.Steps, func(step int, loss float64) {
		if step%50 == 49 {
			fmt.Fprintf(os.Stderr, "step %d of %d, loss %.4f\n", step+1, digits.Steps, loss)
		}
	})
	if err := m.Write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "%.2f %% of 5000 images of another seed are read right\n", 100*m.Accuracy(digits.Seed+1, 5000))
}
