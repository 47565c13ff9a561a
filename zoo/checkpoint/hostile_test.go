package checkpoint

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/zoo/checkpoint/deepspeed"
	"github.com/lathe-ml/lathe/zoo/formats/torch"
)

// oddities are values that no reader expects where they turn up.
func oddities(rng *rand.Rand) torch.Value {
	list := []torch.Value{
		nil, int64(-1), int64(1) << 60, "text", 1.5, true, torch.NewList(), torch.NewTuple(int64(3)), torch.NewDict(),
		torch.Size{-1, 2}, torch.Size{1 << 40, 1 << 40}, torch.NewDict("a", torch.NewList(nil)),
		torch.NewObject("some.module", "Thing", torch.NewDict("numel", "x", "start", int64(-5))),
		torch.NewObject("deepspeed.utils.tensor_fragment", "fragment_address", torch.NewDict("numel", int64(1)<<50, "start", int64(7))),
	}
	return list[rng.IntN(len(list))]
}

// disturb replaces one value somewhere below v.
func disturb(v torch.Value, rng *rand.Rand, depth int) {
	switch x := v.(type) {
	case *torch.Dict:
		pairs := x.Pairs()
		if len(pairs) == 0 {
			return
		}
		kv := pairs[rng.IntN(len(pairs))]
		if depth > 0 && container(kv.Value) && rng.IntN(4) > 0 {
			disturb(kv.Value, rng, depth-1)
		} else if rng.IntN(3) == 0 {
			x.Delete(kv.Key)
		} else {
			x.Set(kv.Key, oddities(rng))
		}
	case *torch.List:
		if len(x.Items) == 0 {
			x.Items = append(x.Items, oddities(rng))
			return
		}
		i := rng.IntN(len(x.Items))
		if depth > 0 && container(x.Items[i]) && rng.IntN(4) > 0 {
			disturb(x.Items[i], rng, depth-1)
		} else {
			x.Items[i] = oddities(rng)
		}
	}
}

func container(v torch.Value) bool {
	switch v.(type) {
	case *torch.Dict, *torch.List:
		return true
	}
	return false
}

// TestHostileValues puts odd values into real checkpoints at random places:
// the readers and planners give errors or results, and never panic.
func TestHostileValues(t *testing.T) {
	cases := []string{"z1_dp2_two_groups", "z3_dp2_bf16_tied_frozen", "z1_tp2_pp2_dp1_megatron", "z1_dp4_moe_ep2", "z1_tp2_dp2_mpu"}
	rejected, n := 0, rounds(24)
	for seed := range uint64(n) {
		rng := rand.New(rand.NewPCG(11, seed))
		name := cases[rng.IntN(len(cases))]
		t.Logf("seed %d %s", seed, name)
		dir := copyCase(t, name)
		files, err := filepath.Glob(filepath.Join(dir, "global_step3", "*.pt"))
		if err != nil || len(files) == 0 {
			t.Fatal(err)
		}
		file := files[rng.IntN(len(files))]
		if strings.Contains(file, "expp_rank") {
			continue
		}
		rewrite(t, file, func(root *torch.Dict) {
			for range 1 + rng.IntN(2) {
				disturb(root, rng, 6)
			}
		})
		if err := useAll(dir, filepath.Join(t.TempDir(), "out")); err != nil {
			rejected++
			if strings.Contains(err.Error(), "BUG") || strings.Contains(err.Error(), "panic") {
				t.Errorf("seed %d, %s: %v", seed, filepath.Base(file), err)
			}
		}
		os.RemoveAll(dir)
	}
	if rejected == 0 || rejected == n {
		t.Errorf("%d of %d were rejected: the test means to have both", rejected, n)
	}
}

// useAll opens, describes and converts.
func useAll(dir, out string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if c, err := Open(dir, OpenOptions{Partial: true}); err == nil {
		Summarize(c)
		c.Close()
	}
	c, err := Open(dir, OpenOptions{})
	if err != nil {
		return err
	}
	defer c.Close()
	for i, target := range []Target{{Format: Universal}, {Format: DeepSpeed, Layout: deepspeed.Layout{DP: 3}}, {Format: Safetensors}, {Format: DCP}} {
		if _, e := Convert(context.Background(), c, fmt.Sprint(out, i), target, RunOptions{}); e != nil {
			err = e
		}
	}
	return err
}
