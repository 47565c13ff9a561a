package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/passes"
)

// suiteResult is a model with a number of threads and a variant.
type suiteResult struct {
	Section string   `json:"section"`
	Group   string   `json:"group"`
	Model   string   `json:"model"`
	Threads int      `json:"threads"`
	Variant string   `json:"variant"`
	Latency *latency `json:"latency_ms,omitempty"`
	Peer    *latency `json:"peer_latency_ms,omitempty"`
	Ratio   *float64 `json:"ratio,omitempty"`
	Error   string   `json:"error,omitempty"`
	*fidelity
}

// suiteStart is the start and the memory of a model.
type suiteStart struct {
	Model         string     `json:"model"`
	Footprint     *footprint `json:"footprint"`
	PeerFootprint *footprint `json:"peer_footprint"`
	StartRatio    *float64   `json:"start_ratio"`
	MemoryRatio   *float64   `json:"memory_ratio,omitempty"`
}

type suiteReport struct {
	Peer    string        `json:"peer"`
	Results []suiteResult `json:"results"`
	Starts  []suiteStart  `json:"starts,omitempty"`

	suite *suite
}

// runSuite times every model of a suite that lies below a folder: all variants
// and the peer in turn.
func (o *benchOptions) runSuite(ctx context.Context, root string) error {
	s, err := o.openSuite()
	if err != nil {
		return err
	}
	rt, err := openPeer(o.factory, o.peer)
	if err != nil {
		return err
	}
	o.engine.peer = rt.Path
	rep := &suiteReport{Peer: rt.Version, Results: []suiteResult{}, suite: s}
	n := 0
	for _, sec := range s.Sections {
		for _, g := range sec.Groups {
			n += len(g.Models) * len(o.threads)
		}
	}
	bar := o.Progress("timing", n)
	defer bar.Done()
	for _, sec := range s.Sections {
		for _, g := range sec.Groups {
			for _, m := range g.Models {
				bar.Describe(m.name())
				if err := o.suiteModel(ctx, root, sec, g, m, rep, func() { bar.Add(1) }); err != nil {
					return err
				}
			}
		}
	}
	if o.table != "" {
		if err := writeFile(o.table, o.suiteMarkdown(rep)); err != nil {
			return err
		}
	}
	return o.printSuite(rep)
}

func (o *benchOptions) openSuite() (*suite, error) {
	switch {
	case o.peer == "":
		return nil, fault.New(fault.Usage, "--suite compares with ONNX Runtime").Hint("add --peer auto")
	case o.profile || o.page != "" || o.baseline != "" || len(o.failIf) > 0 || o.engine.cpu != "" || o.engine.precision != "":
		return nil, fault.New(fault.Usage, "--suite goes with none of --cpu, --precision, --profile, --report, --baseline and --fail-if").Hint("--variants names precisions and CPUs")
	}
	if err := o.checkTiming(); err != nil {
		return nil, err
	}
	s, err := readSuite(o.suite)
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(o.only)
	if err != nil {
		return nil, fault.New(fault.Usage, "--only: %w", err)
	}
	variants, err := parseVariants(o.variants)
	if err != nil {
		return nil, err
	}
	if s = s.filter(re.MatchString, variants); len(s.Sections) == 0 {
		return nil, fault.New(fault.Usage, "no model of the suite matches --only %q", o.only)
	}
	return s, o.checkFiles()
}

// suiteModel times one model with every number of threads. What a model cannot
// do is in its results; only an interruption ends the suite.
func (o *benchOptions) suiteModel(ctx context.Context, root string, sec *suiteSection, g *suiteGroup, m *suiteModel, rep *suiteReport, done func()) error {
	path, drop, err := o.suiteFile(ctx, root, m)
	if err != nil {
		return err
	}
	defer drop()
	var faithful map[variant]*fidelity
	if g := sec.Variants; len(g) > 1 || g[0].precision != "f32" {
		if faithful, err = o.fidelities(ctx, root, path, m, sec.Variants); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			o.Warnf("%s: not compared: %v", m.name(), err)
		}
	}
	for _, o.engine.threads = range o.threads {
		list, err := o.suiteTimes(ctx, path, sec.Variants)
		if err != nil {
			return err
		}
		for i, r := range list {
			r.Section, r.Group, r.Model, r.Threads = sec.Title, g.Title, m.name(), o.engine.threads
			r.fidelity = faithful[sec.Variants[i]]
			rep.Results = append(rep.Results, r)
		}
		done()
	}
	if !m.start {
		return nil
	}
	o.engine.threads = o.threads[0]
	var r benchResult
	if err := o.footprints(ctx, path, &r); err != nil {
		if ctx.Err() != nil {
			return err
		}
		o.Warnf("%s: start and memory: %v", m.name(), err)
		return nil
	}
	rep.Starts = append(rep.Starts, suiteStart{m.name(), r.Footprint, r.PeerFootprint, r.StartRatio, r.MemoryRatio})
	return nil
}

// suiteFile is the model as both sides read it.
func (o *benchOptions) suiteFile(ctx context.Context, root string, m *suiteModel) (path string, drop func(), err error) {
	path, drop = m.file(root), func() {}
	if _, err := os.Stat(path); err != nil {
		return "", nil, fault.New(fault.BadModel, "no such model in the suite's folder: %w", errors.Unwrap(err)).InFile(path)
	}
	if !m.random {
		return path, drop, nil
	}
	model, err := o.loadModel(path)
	if err != nil {
		return "", nil, err
	}
	defer model.Close()
	if _, err := passes.RandomizeWeights(ctx, model, 1); err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "lathe-suite-")
	if err != nil {
		return "", nil, fault.New(fault.Usage, "cannot make a temporary folder: %w", err).Hint("set TMPDIR to a folder with space")
	}
	drop = func() { os.RemoveAll(dir) }
	path = filepath.Join(dir, m.name()+".onnx")
	if err := model.Write(path, onnxfile.WriteOptions{}); err != nil {
		drop()
		return "", nil, err
	}
	return path, drop, nil
}

// as is a copy of the options for a variant.
func (o *benchOptions) as(v variant) *benchOptions {
	c := *o
	c.engine.precision, c.engine.cpu = v.precision, v.cpu
	return &c
}

// suiteTimes times all variants and the peer, in turn, each in a process of its
// own.
func (o *benchOptions) suiteTimes(ctx context.Context, path string, variants []variant) ([]suiteResult, error) {
	list := make([]suiteResult, len(variants))
	fail := func(err error) ([]suiteResult, error) {
		for i := range list {
			if list[i].Error == "" {
				list[i].Error = err.Error()
			}
		}
		return list, ctx.Err()
	}
	var sides []timed
	defer func() {
		for _, t := range sides {
			t.close()
		}
	}()
	at := []int{} // the result of each side
	for i, v := range variants {
		list[i].Variant = v.String()
		w, err := o.as(v).worker(ctx, o.backend, path)
		if err != nil {
			list[i].Error = err.Error()
			continue
		}
		sides, at = append(sides, w), append(at, i)
	}
	peer, err := o.worker(ctx, "peer", path)
	if err != nil {
		return fail(fmt.Errorf("peer: %w", err))
	}
	sides = append(sides, peer)
	times, err := o.inTurn(ctx, sides)
	if err != nil {
		return fail(err)
	}
	last := times[len(times)-1]
	for k, i := range at {
		ratio := last.Median / times[k].Median
		list[i].Latency, list[i].Peer, list[i].Ratio = times[k], last, &ratio
	}
	return list, ctx.Err()
}

// mean is the geometric mean of the ratios of some results.
func (rep *suiteReport) mean(want func(suiteResult) bool) (float64, int) {
	logs, n := 0.0, 0
	for _, r := range rep.Results {
		if r.Ratio != nil && want(r) {
			logs, n = logs+math.Log(*r.Ratio), n+1
		}
	}
	return math.Exp(logs / float64(max(n, 1))), n
}
