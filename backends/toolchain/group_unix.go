//go:build unix

package toolchain

import (
	"os/exec"
	"syscall"
)

// asGroup makes a command end with all that it started: a compiler driver that
// is killed alone leaves its passes running.
func asGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
