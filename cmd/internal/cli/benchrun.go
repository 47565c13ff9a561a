package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
)

// timed is something that can be run n times and tells how long each took.
type timed interface {
	block(ctx context.Context, n int) ([]time.Duration, error)
	prepared() time.Duration
	close()
}

// local runs in this process.
type local struct {
	s    *session
	took time.Duration
	done func()
}

// subject is what is timed, and its inputs: those that lie beside the model, if
// no others are asked for.
func (o *benchOptions) subject(path string) (engine, *onnxfile.Model, *conformance.Set, error) {
	e, m, err := o.openSubject(path, o.backend, o.engine)
	if err != nil {
		return e, nil, nil, err
	}
	set, err := o.set(m)
	if err != nil {
		m.Close()
	}
	return e, m, set, err
}

func (o *benchOptions) local(ctx context.Context, path string) (*local, error) {
	e, m, set, err := o.subject(path)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	s, err := e.prepare(ctx, o.factory, o.engine, m, set)
	if err != nil {
		m.Close()
		return nil, err
	}
	return &local{s: s, took: time.Since(start), done: func() { m.Close() }}, nil
}

// set gives the inputs of a model: those that are asked for, else recorded ones
// that lie beside it, else random values.
func (o *benchOptions) set(m *onnxfile.Model) (*conformance.Set, error) {
	return o.inputs.readBeside(o.factory, m, &o.shapes)
}

func (l *local) block(ctx context.Context, n int) ([]time.Duration, error) {
	out := make([]time.Duration, n)
	for i := range out {
		start := time.Now()
		if err := l.s.run(ctx); err != nil {
			return nil, err
		}
		out[i] = time.Since(start)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (l *local) prepared() time.Duration { return l.took }
func (l *local) close() {
	l.s.close()
	l.done()
}

// remote runs in a process of its own and takes orders on a pipe: a number of
// runs per line, answered by their times in nanoseconds.
type remote struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	took  time.Duration
	words *strings.Builder // what it said on stderr
}

// worker starts this program again as a worker for one backend.
func (o *benchOptions) worker(ctx context.Context, backend, path string) (*remote, error) {
	argv := []string{path, "--backend", backend, "--shapes-from", o.shapes.from, "--preprocess", o.inputs.preprocess}
	if backend != "peer" && !isArtifact(path) {
		argv = append(argv, o.engine.args()...)
	}
	if o.engine.pin != "" && backend != "peer" {
		argv = append(argv, "--pin="+o.engine.pin)
	}
	for flag, list := range map[string][]string{"--dim": o.shapes.dims, "--input-shapes": o.shapes.shapes, "--input": o.inputs.files} {
		for _, v := range list {
			argv = append(argv, flag, v)
		}
	}
	r, err := o.start(ctx, argv)
	if err != nil {
		return nil, err
	}
	line, err := r.answer()
	if err != nil {
		return nil, err
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("the worker said %q", line)
	}
	r.took = time.Duration(ns)
	return r, nil
}

// start starts this program again as a worker.
func (o *benchOptions) start(ctx context.Context, args []string) (*remote, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot start a second process: %w", err)
	}
	argv := append([]string{workerName, "--threads", itoa(o.engine.threads), "--seed", strconv.FormatUint(o.inputs.seed, 10),
		"--library", o.engine.peer, "--reader", o.reader, "--quiet"}, args...)
	if o.cacheFlag != "" {
		argv = append(argv, "--cache-dir", o.cacheFlag)
	}
	r := &remote{cmd: exec.CommandContext(ctx, exe, argv...), words: &strings.Builder{}}
	r.cmd.Args[0] = "lathe"
	r.cmd.Stderr = r.words
	r.cmd.Cancel = func() error { return r.cmd.Process.Signal(os.Interrupt) }
	r.cmd.WaitDelay = patience
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.out = bufio.NewReaderSize(out, 1<<20)
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start a second process: %w", err)
	}
	return r, nil
}

// answer reads a line; a worker that ends instead has said why.
func (r *remote) answer() (string, error) {
	line, err := r.out.ReadString('\n')
	if err == nil {
		return line, nil
	}
	waitErr := r.cmd.Wait()
	kind := fault.Internal
	var exit *exec.ExitError
	if errors.As(waitErr, &exit) {
		for k, code := range exitCodes {
			if code == exit.ExitCode() {
				kind = k
			}
		}
	}
	said, hint, _ := strings.Cut(strings.TrimSpace(r.words.String()), "\n")
	if said == "" {
		said = fmt.Sprintf("the worker ended: %v", waitErr)
	}
	e := fault.New(kind, "%s", strings.TrimPrefix(said, "lathe: "))
	if _, h, ok := strings.Cut(hint, "hint: "); ok {
		e.Help = h
	}
	return "", e
}

func (r *remote) block(_ context.Context, n int) ([]time.Duration, error) {
	if _, err := fmt.Fprintln(r.in, n); err != nil {
		_, said := r.answer()
		return nil, said
	}
	line, err := r.answer()
	if err != nil {
		return nil, err
	}
	words := strings.Fields(line)
	if len(words) != n {
		return nil, fmt.Errorf("the worker answered %d times for %d runs", len(words), n)
	}
	out := make([]time.Duration, n)
	for i := range out {
		ns, err := strconv.ParseInt(words[i], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the worker answered %q", words[i])
		}
		out[i] = time.Duration(ns)
	}
	return out, nil
}

func (r *remote) prepared() time.Duration { return r.took }
func (r *remote) close() {
	r.in.Close()
	_ = r.cmd.Wait() // its figures are in; how it ends does not matter
}

// workerName is the hidden command that a second process runs.
const workerName = "bench-worker"

func newBenchWorkerCmd(f *factory) *cobra.Command {
	o := &benchOptions{factory: f}
	once := false
	cmd := &cobra.Command{
		Use:     workerName + " MODEL",
		Short:   "Time runs on order: lathe bench starts it",
		Hidden:  true,
		Example: "  echo 10 | lathe " + workerName + " model.onnx",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if once {
				return o.once(cmd.Context(), a[0])
			}
			l, err := o.local(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			defer l.close()
			f.Printf("%d\n", l.took.Nanoseconds())
			return serve(cmd.Context(), f, l)
		},
	}
	o.flags(cmd)
	cmd.Flags().IntVar(&o.engine.threads, "threads", 1, "threads per run")
	cmd.Flags().BoolVar(&once, "once", false, "open, run and tell what that took")
	cmd.Flags().StringVar(&o.engine.peer, "library", "", "path of ONNX Runtime's library")
	return cmd
}

func serve(ctx context.Context, f *factory, l *local) error {
	orders := bufio.NewScanner(f.In)
	for orders.Scan() {
		n, err := strconv.Atoi(strings.TrimSpace(orders.Text()))
		if err != nil || n < 1 {
			return fault.New(fault.Usage, "%q is no number of runs", orders.Text())
		}
		times, err := l.block(ctx, n)
		if err != nil {
			return err
		}
		var b strings.Builder
		for _, t := range times {
			fmt.Fprintf(&b, "%d ", t.Nanoseconds())
		}
		f.Printf("%s\n", b.String())
	}
	return orders.Err()
}

// blockTime is about how long one side runs before the other has its turn:
// long enough to warm its caches, short enough that both see the same machine.
const blockTime = 50 * time.Millisecond

// rest lets the other side's threads, which spin for a while after a run, go
// to sleep before this side begins. Where each side has one, none spins.
const rest = 60 * time.Millisecond

// series is one side's times.
type series struct {
	t     timed
	times []time.Duration
	total time.Duration
	n     int // runs per block
}

func (o *benchOptions) begin(ctx context.Context, t timed) (*series, error) {
	s := &series{t: t, n: 1}
	var spent time.Duration
	for range max(1, o.warmup) {
		times, err := t.block(ctx, 1)
		if err != nil {
			return nil, err
		}
		s.n = int(min(max(blockTime/max(times[0], 1), 1), 1000))
		if spent += times[0]; spent > o.minTime {
			break
		}
	}
	return s, nil
}

// turn runs a block. Where a side was idle, its first run pays for cold caches:
// it does not count.
func (s *series) turn(ctx context.Context, idle bool) error {
	n := s.n
	if idle {
		n++
	}
	times, err := s.t.block(ctx, n)
	if err != nil {
		return err
	}
	for _, t := range times[n-s.n:] {
		s.times = append(s.times, t)
		s.total += t
	}
	return nil
}

// enough ends the timing; of slow models a few runs do.
func (o *benchOptions) enough(s *series) bool {
	few := s.total >= 10*o.minTime && len(s.times) >= min(3, o.minRuns)
	return few || s.total >= o.minTime && len(s.times) >= o.minRuns
}

func (o *benchOptions) measure(ctx context.Context, t timed) (*latency, error) {
	s, err := o.begin(ctx, t)
	if err != nil {
		return nil, err
	}
	for !o.enough(s) {
		if err := s.turn(ctx, false); err != nil {
			return nil, err
		}
	}
	return s.latency(), nil
}

// inTurn times several sides by turns.
func (o *benchOptions) inTurn(ctx context.Context, list []timed) ([]*latency, error) {
	sides := make([]*series, len(list))
	for i, t := range list {
		s, err := o.begin(ctx, t)
		if err != nil {
			return nil, err
		}
		sides[i] = s
	}
	for !o.allEnough(sides) {
		for _, s := range sides {
			if o.engine.threads > 1 {
				time.Sleep(rest)
			}
			if err := s.turn(ctx, true); err != nil {
				return nil, err
			}
		}
	}
	out := make([]*latency, len(sides))
	for i, s := range sides {
		out[i] = s.latency()
	}
	return out, nil
}

func (o *benchOptions) allEnough(sides []*series) bool {
	for _, s := range sides {
		if !o.enough(s) {
			return false
		}
	}
	return true
}

func (s *series) latency() *latency {
	ts := slices.Clone(s.times)
	sort.Slice(ts, func(i, j int) bool { return ts[i] < ts[j] })
	ms := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
	at := func(percent int) float64 { return ms(ts[rankOf(percent, len(ts))]) }
	l := &latency{Runs: len(ts), Min: ms(ts[0]), Median: at(50), P90: at(90), P95: at(95), P99: at(99), Max: ms(ts[len(ts)-1]),
		Mean: ms(s.total) / float64(len(ts)), Prepare: ms(s.t.prepared())}
	l.PerSec = 1000 / l.Mean
	return l
}

// rankOf is the place of a percentile among n sorted figures: the first that so
// many percent of them do not exceed.
func rankOf(percent, n int) int { return max((percent*n+99)/100, 1) - 1 }
