package artifact

import (
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/program"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// CheckRoom refuses a program that needs more memory to run than this machine
// has, before anything is allocated: Go programs cannot survive an allocation
// that fails.
func CheckRoom(workspace int, ports ...[]program.Port) error {
	return checkRoom(machineMemory(), workspace, ports...)
}

func checkRoom(have uint64, workspace int, ports ...[]program.Port) error {
	need := uint64(max(workspace, 0))
	for _, ps := range ports {
		for _, p := range ps {
			n, err := tensor.Count(p.Shape)
			if err != nil {
				return fault.New(fault.BadModel, "shape of %q: %w", p.Name, err)
			}
			need += uint64(p.Type.Bytes(n))
		}
	}
	if have > 0 && need > have {
		return fault.New(fault.Toolchain, "a run needs %d MiB of memory, this machine has %d", need>>20, have>>20).
			Hint("bind smaller dimensions with --dim or --input-shapes, or run it on a larger machine")
	}
	return nil
}
