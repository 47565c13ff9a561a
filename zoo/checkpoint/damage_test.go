package checkpoint

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// copyCase copies a recorded source so that it can be damaged.
func copyCase(t *testing.T, name string) string {
	t.Helper()
	src := filepath.Join(casesDir(t), name, "source")
	dst := filepath.Join(t.TempDir(), "source")
	err := filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(dst, rel), 0o777)
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dst, rel), b, 0o666)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dst
}

// flip changes one byte in the middle of the largest storage of a torch file.
func flip(t *testing.T, file string) {
	t.Helper()
	var big *torch.Storage
	for _, x := range readFile(t, file).Storages {
		if big == nil || x.Bytes() > big.Bytes() {
			big = x
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[big.Offset+big.Bytes()/2] ^= 4
	if err := os.WriteFile(file, b, 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedSources gives one clear error each, and writes nothing.
func TestDamagedSources(t *testing.T) {
	const tag = "global_step3"
	rank1 := filepath.Join(tag, "zero_pp_rank_1_mp_rank_00_optim_states.pt")
	for _, c := range []struct {
		name, source string
		damage       func(t *testing.T, dir string)
		want         string
	}{
		{"missing rank", "z1_dp2_fp32", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, rank1)) },
			"1 rank files are missing: zero_pp_rank_1_mp_rank_00_optim_states.pt"},
		{"missing model rank", "z1_tp2_dp2_mpu", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, tag, "mp_rank_01_model_states.pt")) },
			"1 of 2 model-parallel ranks have no model-states file"},
		{"double rank", "z1_dp2_fp32", func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, rank1))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, tag, "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"), b, 0o666); err != nil {
				t.Fatal(err)
			}
		}, "are both data-parallel rank 1"},
		{"flipped byte", "z1_dp2_fp32", func(t *testing.T, dir string) { flip(t, filepath.Join(dir, rank1)) }, "it is damaged"},
		{"flipped byte in ZeRO-3", "z3_dp2_fp32", func(t *testing.T, dir string) { flip(t, filepath.Join(dir, rank1)) }, "it is damaged"},
		{"truncated", "z1_dp2_fp32", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, rank1), 9000); err != nil {
				t.Fatal(err)
			}
		}, "zero_pp_rank_1_mp_rank_00_optim_states.pt"},
		{"other rank's file", "z1_tp2_dp2_mpu", func(t *testing.T, dir string) {
			a := filepath.Join(dir, tag, "zero_pp_rank_0_mp_rank_00_optim_states.pt")
			b := filepath.Join(dir, tag, "zero_pp_rank_1_mp_rank_00_optim_states.pt")
			data, err := os.ReadFile(a)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(b, data, 0o666); err != nil {
				t.Fatal(err)
			}
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyCase(t, c.source)
			c.damage(t, dir)
			out := filepath.Join(t.TempDir(), "out")
			src, err := Open(dir, OpenOptions{})
			if err == nil {
				defer src.Close()
				_, err = Convert(context.Background(), src, out, Target{Format: Universal}, RunOptions{})
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if fault.KindOf(err) != fault.BadModel {
				t.Errorf("error %v has class %v", err, fault.KindOf(err))
			}
			left, err := os.ReadDir(filepath.Dir(out))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// TestInspectReportsMissingRanks opens what cannot be converted.
func TestInspectReportsMissingRanks(t *testing.T) {
	dir := copyCase(t, "z1_dp4_bf16")
	remove(t, filepath.Join(dir, "global_step3", "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt"))
	c := open(t, dir, OpenOptions{Partial: true})
	if all := strings.Join(c.Warnings, "\n"); !strings.Contains(all, "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt") {
		t.Errorf("warnings: %s", all)
	}
	if s := Summarize(c); s.Topology.DP != 4 || s.Params < 29 {
		t.Errorf("summary %+v with %d parameters", s.Topology, s.Params)
	}
}

// TestOutputs checks that nothing is overwritten, and that shares of the work
// make one output.
func TestOutputs(t *testing.T) {
	src := open(t, filepath.Join(casesDir(t), "z1_dp2_fp32", "source"), OpenOptions{})
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	for i := 1; i <= 3; i++ {
		r, err := Convert(context.Background(), src, out, Target{Format: Universal}, RunOptions{Shard: i, Shards: 3})
		if err != nil {
			t.Fatal(err)
		}
		_, err = os.Stat(out)
		if done := err == nil; done != (i == 3) || r.Complete != done {
			t.Fatalf("after share %d: complete %v, output %v", i, r.Complete, err)
		}
	}
	equalStates(t, open(t, out, OpenOptions{}), src)
	calm := filepath.Join(dir, "calm")
	convert(t, src, calm, Target{Format: Universal})
	equalTrees(t, out, calm)
	if _, err := Convert(context.Background(), src, out, Target{Format: Universal}, RunOptions{}); fault.KindOf(err) != fault.Usage {
		t.Errorf("an output that exists: %v", err)
	}
	if _, err := Convert(context.Background(), src, out, Target{Format: DCP}, RunOptions{Force: true}); err != nil {
		t.Errorf("with force: %v", err)
	}
	if _, err := os.Stat(filepath.Join(out, ".metadata")); err != nil {
		t.Error(err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
	r, err := Convert(context.Background(), src, filepath.Join(dir, "dry"), Target{Format: Universal}, RunOptions{DryRun: true})
	if err != nil || len(r.Plan) != r.Files || r.Files == 0 {
		t.Errorf("dry run: %+v %v", r, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "dry")); err == nil {
		t.Error("a dry run wrote something")
	}
}

// TestTwoRunsAtOnce refuses a second process on one output; a lock that a dead
// process left does not count.
func TestTwoRunsAtOnce(t *testing.T) {
	src := open(t, filepath.Join(casesDir(t), "z1_dp2_fp32", "source"), OpenOptions{})
	dir := t.TempDir()
	host, _ := os.Hostname()
	lock := filepath.Join(dir, ".out.lathe-lock-1of1")
	for _, c := range []struct {
		pid  int
		want fault.Kind
	}{{os.Getppid(), fault.Usage}, {1 << 22, fault.Internal}} {
		if err := os.WriteFile(lock, fmt.Appendf(nil, "%d %s\n", c.pid, host), 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := Convert(context.Background(), src, filepath.Join(dir, "out"), Target{Format: Universal}, RunOptions{})
		if (err == nil) != (c.want == fault.Internal) || err != nil && fault.KindOf(err) != c.want {
			t.Errorf("lock of process %d: %v", c.pid, err)
		}
	}
}
