package csource

import (
	"strings"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/loop"
)

// Source files are compiled at once and cached one by one, so that a file ends
// after some kernels; but a C compiler needs some 20 ms to begin, so that small
// kernels share a file until there is that much to do.
const (
	kernelsPerFile = 24
	bytesPerFile   = 24 << 10
)

// units are the printed kernels of a program.
type units struct {
	files []unit
	own   []*loop.Kernel // kernels with a function of their own
	// same maps the other ones to a kernel with the same function: two that
	// differ in the bound of the parallel loop alone, which is an argument.
	same map[*loop.Kernel]*loop.Kernel
}

type unit struct {
	kernels []*loop.Kernel
	text    string
}

func printKernels(kernels []*loop.Kernel, t backend.Traits, separate bool) *units {
	u := &units{same: map[*loop.Kernel]*loop.Kernel{}}
	printed := map[string]*loop.Kernel{}
	var f []*loop.Kernel
	var b strings.Builder
	end := func() {
		if len(f) > 0 {
			u.files = append(u.files, unit{f, b.String()})
		}
		f = nil
		b.Reset()
	}
	for _, k := range kernels {
		text := Kernel(k, t)
		nameless := strings.ReplaceAll(text, KernelName(k), "k")
		if first := printed[nameless]; first != nil && divided(first, t) == divided(k, t) {
			u.same[k] = first
			continue
		}
		printed[nameless] = k
		u.own = append(u.own, k)
		f = append(f, k)
		b.WriteString("\n" + text)
		if separate || len(f) >= kernelsPerFile && b.Len() >= bytesPerFile {
			end()
		}
	}
	end()
	return u
}
