package checkpoint

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/zoo/checkpoint/deepspeed"
	"github.com/lathe-ml/lathe/zoo/checkpoint/synthetic"
)

// TestMain lets the test run itself as the process that is killed.
func TestMain(m *testing.M) {
	if src := os.Getenv("LATHE_TEST_CONVERT"); src != "" {
		c, err := Open(src, OpenOptions{})
		if err == nil {
			_, err = Convert(context.Background(), c, os.Getenv("LATHE_TEST_OUTPUT"), killTarget(os.Getenv("LATHE_TEST_FORMAT")), RunOptions{})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func killTarget(format string) Target {
	t := Target{Format: format}
	switch format {
	case Torch:
		t.File = "model.bin"
	case DeepSpeed:
		t.Layout = deepspeed.Layout{TP: 2, DP: 3, Zero: 2}
	}
	return t
}

// kills is how often a conversion is killed: LATHE_KILLS=100 for the full proof.
func kills() int {
	if n, err := strconv.Atoi(os.Getenv("LATHE_KILLS")); err == nil {
		return n
	}
	return 6
}

// TestKilledRunsResume kills conversions at random moments until one gets
// through. Nothing may be under the final name before, and the result equals
// that of a run in peace, byte for byte.
func TestKilledRunsResume(t *testing.T) {
	dir := t.TempDir()
	m := synthetic.Model{Layers: 6, Hidden: 256, FFN: 1024, Vocab: 9000, Positions: 64, Module: synthetic.GPT2.Module, Groups: 2, Seed: 3}
	c, err := synthetic.New(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(dir, "src")
	convert(t, c, src, Target{Format: DeepSpeed, Layout: deepspeed.Layout{TP: 2, PP: 1, DP: 2, Zero: 1}})
	rng := rand.New(rand.NewPCG(5, 6))
	left := kills()
	for round := 0; left > 0; round++ {
		format := []string{Universal, Torch, DeepSpeed}[round%3]
		calm := filepath.Join(dir, "calm-"+format)
		if _, err := os.Stat(calm); err != nil {
			convert(t, open(t, src, OpenOptions{}), calm, killTarget(format))
		}
		out := filepath.Join(dir, "out")
		resumed := 0
		for {
			killed := killOnce(t, src, out, format, time.Duration(rng.Int64N(int64(150*time.Millisecond))), left > 0)
			if !killed {
				break
			}
			left--
			resumed++
			if _, err := os.Stat(out); err == nil {
				break // it was killed after the rename
			}
		}
		if _, err := os.Stat(out); err != nil {
			t.Fatalf("%s: no output after %d kills", format, resumed)
		}
		equalTrees(t, out, calm)
		os.RemoveAll(out)
		os.Remove(out + ".manifest.json")
	}
}

// killOnce runs a conversion and kills it after a while, if it may; it tells
// whether the process died of that.
func killOnce(t *testing.T, src, out, format string, after time.Duration, may bool) bool {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^$")
	cmd.Env = append(os.Environ(), "LATHE_TEST_CONVERT="+src, "LATHE_TEST_OUTPUT="+out, "LATHE_TEST_FORMAT="+format)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if may {
		timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
		defer timer.Stop()
	}
	err = cmd.Wait()
	if err == nil {
		return false
	}
	if cmd.ProcessState.ExitCode() >= 0 {
		t.Fatalf("%s: %v", format, err)
	}
	return true
}

// equalTrees compares files or folders byte for byte.
func equalTrees(t *testing.T, got, want string) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(want, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(want, p)
		if err != nil {
			return err
		}
		a, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(got, rel))
		if err != nil {
			return err
		}
		if string(a) != string(b) {
			t.Errorf("%s differs", rel)
		}
		n++
		return nil
	})
	if err != nil || n == 0 {
		t.Fatalf("compare %s with %s: %d files, %v", got, want, n, err)
	}
}
