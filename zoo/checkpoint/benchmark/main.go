// Command benchmark measures conversions of large checkpoints against a plain
// copy of the same bytes on the same machine: wall time, processor time, memory
// and bytes. It makes its own inputs.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"syscall"
	"time"

	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint"
	"github.com/lathe-ml/lathe/zoo/checkpoint/deepspeed"
	"github.com/lathe-ml/lathe/zoo/checkpoint/synthetic"
)

// input is a checkpoint to be measured.
type input struct {
	name   string
	layout deepspeed.Layout
	scale  int64
	sparse bool
}

// The inputs: GPT-2 small in three layouts, 1.5 to 1.8 GB each, and larger ones
// made of holes.
var inputs = []input{
	{name: "z1_dp4", layout: deepspeed.Layout{TP: 1, PP: 1, DP: 4, Zero: 1}, scale: 1},
	{name: "z3_dp4", layout: deepspeed.Layout{TP: 1, PP: 1, DP: 4, Zero: 3}, scale: 1},
	{name: "z1_tp2_dp2", layout: deepspeed.Layout{TP: 2, PP: 1, DP: 2, Zero: 1}, scale: 1},
	{name: "z1_dp4_4x", layout: deepspeed.Layout{TP: 1, PP: 1, DP: 4, Zero: 1}, scale: 4, sparse: true},
	{name: "z1_dp4_16x", layout: deepspeed.Layout{TP: 1, PP: 1, DP: 4, Zero: 1}, scale: 16, sparse: true},
}

// The bars of the issue, for inputs that are not sparse.
const (
	maxWall = 2.5 // times cp -r
	maxCPU  = 3 * time.Second
	maxRSS  = 150 << 20
)

func main() {
	dir := flag.String("dir", filepath.Join(os.TempDir(), "lathe-bench-checkpoint"), "folder for inputs and outputs")
	runs := flag.Int("runs", 5, "runs, of which the fastest counts: it is the least disturbed one")
	check := flag.Bool("check", false, "exit with code 1 if a bar is missed")
	keep := flag.Bool("keep", false, "keep the inputs for the next time")
	only := flag.String("only", "", "measure one input")
	worker := flag.Bool("worker", false, "convert one input (used by the command itself)")
	profile := flag.String("cpuprofile", "", "write a profile of the conversion to this file (with -worker)")
	flag.Parse()
	var err error
	if *worker {
		if *profile != "" {
			f, err := os.Create(*profile)
			if err != nil {
				fmt.Fprintln(os.Stderr, "benchmark:", err)
				os.Exit(1)
			}
			if err := pprof.StartCPUProfile(f); err == nil {
				defer pprof.StopCPUProfile()
			}
		}
		err = convert(flag.Arg(0), flag.Arg(1), flag.Arg(2))
	} else {
		err = measureAll(*dir, *runs, *check, *keep, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmark:", err)
		os.Exit(1)
	}
}

// convert is one run, in a process of its own.
func convert(src, out, to string) error {
	c, err := checkpoint.Open(src, checkpoint.OpenOptions{})
	if err != nil {
		return err
	}
	defer c.Close()
	t := checkpoint.Target{Format: to}
	if to == checkpoint.DeepSpeed {
		t.Layout = deepspeed.Layout{DP: 3}
	}
	_, err = checkpoint.Convert(context.Background(), c, out, t, checkpoint.RunOptions{})
	return err
}

// figures are what one process took.
type figures struct {
	wall, cpu time.Duration
	rss       int64
}

func run(name string, args ...string) (figures, error) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	start := time.Now()
	err := cmd.Run()
	f := figures{wall: time.Since(start)}
	if err != nil {
		return f, fmt.Errorf("%s: %w", name, err)
	}
	f.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		f.rss = u.Maxrss << 10
	}
	return f, nil
}

func measureAll(dir string, runs int, check, keep bool, only string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	fmt.Printf("%d cores, %s, %s/%s; best of %d runs, input in the page cache\n\n", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, runs)
	fmt.Printf("%-12s %-12s %8s %8s %8s %8s %8s %8s\n", "input", "to", "MB", "cp s", "wall s", "x cp", "cpu s", "RSS MB")
	missed := 0
	for _, in := range inputs {
		if only != "" && only != in.name {
			continue
		}
		n, err := in.measure(dir, runs, keep)
		if err != nil {
			return fmt.Errorf("%s: %w", in.name, err)
		}
		missed += n
	}
	if check && missed > 0 {
		return fmt.Errorf("%d bars were missed", missed)
	}
	return nil
}

func (in input) measure(dir string, runs int, keep bool) (missed int, err error) {
	src, err := in.make(dir)
	if err != nil {
		return 0, err
	}
	if !keep {
		defer os.RemoveAll(src)
	}
	size, err := read(src)
	if err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	targets := []string{checkpoint.Universal, checkpoint.DeepSpeed, checkpoint.Safetensors}
	if in.sparse {
		targets, runs = targets[:1], 1
	}
	for _, to := range targets {
		var copies, ours []figures
		for range runs {
			if !in.sparse { // a copy of holes says nothing
				f, err := timed(filepath.Join(dir, "copy"), func(out string) (figures, error) { return run("cp", "-r", src, out) })
				if err != nil {
					return 0, err
				}
				copies = append(copies, f)
			}
			f, err := timed(filepath.Join(dir, "out"), func(out string) (figures, error) { return run(self, "-worker", src, out, to) })
			if err != nil {
				return 0, err
			}
			ours = append(ours, f)
		}
		missed += in.print(to, size, copies, ours)
	}
	return missed, nil
}

func (in input) print(to string, size int64, copies, ours []figures) (missed int) {
	f := best(ours)
	cp, ratio := "-", "-"
	over := ""
	if len(copies) > 0 {
		c := best(copies)
		x := f.wall.Seconds() / c.wall.Seconds()
		cp, ratio = fmt.Sprintf("%.2f", c.wall.Seconds()), fmt.Sprintf("%.2f", x)
		if x > maxWall {
			over += " wall"
		}
		if f.cpu > maxCPU {
			over += " cpu"
		}
	}
	if f.rss > maxRSS {
		over += " rss"
	}
	mb := float64(size) / 1e6
	fmt.Printf("%-12s %-12s %8.0f %8s %8.2f %8s %8.2f %8.0f   %.0f MB/s", in.name, to, mb, cp, f.wall.Seconds(), ratio, f.cpu.Seconds(), float64(f.rss)/1e6, mb/f.wall.Seconds())
	if over != "" {
		fmt.Printf("   over:%s", over)
		missed = 1
	}
	fmt.Println()
	return missed
}

// timed runs with a fresh output that is removed afterwards. What the last run
// wrote goes to the disk first, so that nobody pays for another's bytes.
func timed(out string, fn func(out string) (figures, error)) (figures, error) {
	if err := os.RemoveAll(out); err != nil {
		return figures{}, err
	}
	syscall.Sync()
	f, err := fn(out)
	os.RemoveAll(out)
	return f, err
}

// best is the run that took the least time.
func best(fs []figures) figures {
	return slices.MinFunc(fs, func(a, b figures) int { return int(a.wall - b.wall) })
}

// make writes the input unless it is there.
func (in input) make(dir string) (string, error) {
	place := filepath.Join(dir, in.name)
	if _, err := os.Stat(place); err == nil {
		return place, nil
	}
	m := synthetic.GPT2
	m.Layers *= in.scale
	if in.sparse {
		s, err := weights.CreateOS(place)
		if err != nil {
			return "", err
		}
		defer s.Close()
		return place, synthetic.WriteSparse(s, m, in.layout)
	}
	c, err := synthetic.New(m, nil)
	if err != nil {
		return "", err
	}
	_, err = checkpoint.Convert(context.Background(), c, place, checkpoint.Target{Format: checkpoint.DeepSpeed, Layout: in.layout}, checkpoint.RunOptions{})
	return place, err
}

// read puts the input into the page cache and tells its size.
func read(dir string) (int64, error) {
	total := int64(0)
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		n, err := io.Copy(io.Discard, f)
		total += n
		return err
	})
	return total, err
}
