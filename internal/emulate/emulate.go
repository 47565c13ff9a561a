// Package emulate builds and runs C programs for arm64 in tests, on a machine
// of any architecture: a cross compiler and qemu's user mode emulation, which it
// installs where it may. It knows nothing about what the programs are.
package emulate

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

const (
	compiler = "aarch64-linux-gnu-gcc"
	emulator = "qemu-aarch64-static"
	sysroot  = "/usr/aarch64-linux-gnu"
)

// packages are Debian's.
var packages = []string{"gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user-static"}

// install gets the packages on a Debian machine where the tests run as root. A
// reason is given where it cannot.
var install = sync.OnceValue(func() string {
	if have() {
		return ""
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil || os.Getuid() != 0 {
		return "no " + compiler + " and " + emulator + " (Debian: apt-get install " + packages[0] + " " + packages[1] + " " + packages[2] + ")"
	}
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Minute)
	defer stop()
	args := append([]string{"install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=240"}, packages...)
	cmd := exec.CommandContext(ctx, apt, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil || !have() {
		return "the packages for arm64 could not be installed: " + string(out[max(0, len(out)-500):])
	}
	return ""
})

func have() bool {
	_, noCompiler := exec.LookPath(compiler)
	_, noEmulator := exec.LookPath(emulator)
	return noCompiler == nil && noEmulator == nil
}

// Build compiles C files into an arm64 program; args are the compiler's. The
// test is skipped where that cannot be.
func Build(t testing.TB, exe string, args ...string) {
	t.Helper()
	cc := compiler
	if runtime.GOARCH == "arm64" {
		cc = "gcc"
	} else if why := install(); why != "" {
		t.Skip(why)
	}
	cmd := exec.Command(cc, append(args, "-o", exe)...)
	cmd.Dir = filepath.Dir(exe)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%.4000s", err, out)
	}
}

// Need skips the test where arm64 programs cannot be built or run.
func Need(t testing.TB) {
	t.Helper()
	if runtime.GOARCH == "arm64" {
		return
	}
	if why := install(); why != "" {
		t.Skip(why)
	}
}

// Run runs an arm64 program on a model of CPU that qemu knows ("" for all that
// it can do) and gives what it printed.
func Run(cpu, exe string, args ...string) (string, error) {
	name, line := exe, args
	if runtime.GOARCH != "arm64" {
		name, line = emulator, []string{"-L", sysroot}
		if cpu != "" {
			line = append(line, "-cpu", cpu)
		}
		line = append(append(line, exe), args...)
	}
	cmd := exec.Command(name, line...)
	cmd.Dir = filepath.Dir(exe)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
