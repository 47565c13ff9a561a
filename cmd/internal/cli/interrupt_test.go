package cli

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/schedule"
)

// TestInterruptLeavesNothing interrupts a compile while the C compiler runs:
// the code is 130, and neither an artifact nor a temporary is left.
func TestInterruptLeavesNothing(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skipf("no shell to stand in for a slow compiler: %v", err)
	}
	dir := t.TempDir()
	started := filepath.Join(dir, "started")
	cc := filepath.Join(dir, "slow-cc")
	script := "#!/bin/sh\n[ \"$1\" = --version ] && { echo slow 1.0; exit 0; }\ntouch '" + started + "'\nexec sleep 60\n"
	if err := os.WriteFile(cc, []byte(script), 0o777); err != nil {
		t.Fatal(err)
	}
	m := model(t, "onnx graph \"g\" {\n  input %x: f32[2]\n  %y: f32[2] = Neg(%x)\n  output %y\n}")
	in := filepath.Join(dir, "m.onnx")
	if err := m.Write(in, onnxfile.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "compile", in, "-o", "out", "--cc", cc, "--cache-dir", filepath.Join(dir, "cache"))
	cmd.Args[0] = "lathe"
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(started); err == nil {
			break
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			t.Fatalf("the compiler was not started: %s", said.String())
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted || said.String() != "lathe: interrupted\n" {
		t.Errorf("%v, %q", err, said.String())
	}
	left, err := os.ReadDir(work)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestInterruptKeepsRecords interrupts a search: the code is 130, the best so
// far is printed, and what was measured is in the book.
func TestInterruptKeepsRecords(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	dir := t.TempDir()
	m := model(t, "onnx graph \"g\" {\n  input %x: f32[32x64]\n  init %w = f32[1x1]{0.5}\n  init %s = i64[2]{64, 48}\n"+
		"  %e: f32[64x48] = Expand(%w, %s)\n  %y: f32[32x48] = MatMul(%x, %e)\n  output %y\n}")
	in, book := filepath.Join(dir, "m.onnx"), filepath.Join(dir, "book.jsonl")
	if err := m.Write(in, onnxfile.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "tune", in, "-o", book, "--json")
	cmd.Args[0] = "lathe"
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	var said, out bytes.Buffer
	cmd.Stderr, cmd.Stdout = &said, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(book); err == nil {
			break
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			t.Fatalf("no record was written: %s", said.String())
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted || !bytes.Contains(out.Bytes(), []byte(`"stopped": "interrupted"`)) {
		t.Errorf("%v, %q, %q", err, out.String(), said.String())
	}
	b, bad, err := schedule.ReadFile(book)
	if err != nil || len(bad) > 0 || b.Len() == 0 {
		t.Errorf("%v %v", bad, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "lathe-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
