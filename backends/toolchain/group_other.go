//go:build !unix

package toolchain

import "os/exec"

// asGroup does nothing where processes have no groups.
func asGroup(*exec.Cmd) {}
