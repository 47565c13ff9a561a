package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/atomicfile"
	"github.com/lathe-ml/lathe/zoo/data"
)

// footprint is what a process that opens a model and runs it needs before the
// first result, and how much memory. Memory counts from when the inputs lie
// ready, and for ONNX Runtime its library is loaded, to the highest point of
// some runs: resident pages, those of mapped files among them.
type footprint struct {
	Open    float64 `json:"open_ms"`               // an artifact: its library, weights, workspace; the peer: its session
	First   float64 `json:"first_result_ms"`       // from the start of opening to the first result
	Peak    float64 `json:"peak_mib,omitempty"`    // 0 where the system does not tell
	Anon    float64 `json:"anon_mib"`              // of the process's own pages, at the end
	File    float64 `json:"file_mib"`              // of pages of mapped files, at the end
	Library float64 `json:"library_mib,omitempty"` // ONNX Runtime's library, not in the peak
}

// footprintProcesses is how many processes of each side are measured, in turn.
const footprintProcesses = 5

// footprints measures processes of their own; the model is compiled before, so
// that they only open and run.
func (o *benchOptions) footprints(ctx context.Context, path string, r *benchResult) error {
	dir, err := os.MkdirTemp("", "lathe-bench-")
	if err != nil {
		return fault.New(fault.Usage, "cannot make a temporary folder: %w", err).Hint("set TMPDIR to a folder with space")
	}
	defer os.RemoveAll(dir)
	art, model, err := o.stage(ctx, path, dir)
	if err != nil {
		return err
	}
	var own, peer []footprint
	for range footprintProcesses {
		f, err := o.opened(ctx, "", art, filepath.Join(dir, "own"))
		if err != nil {
			return err
		}
		own = append(own, f)
		if o.peer == "" {
			continue
		}
		if f, err = o.opened(ctx, "peer", model, filepath.Join(dir, "peer")); err != nil {
			return fmt.Errorf("peer: %w", err)
		}
		peer = append(peer, f)
	}
	r.Footprint = middle(own)
	if len(peer) == 0 {
		return nil
	}
	r.PeerFootprint = middle(peer)
	start := r.Footprint.First / r.PeerFootprint.Open
	r.StartRatio = &start
	if r.Footprint.Peak > 0 && r.PeerFootprint.Peak > 0 {
		memory := r.Footprint.Peak / r.PeerFootprint.Peak
		r.MemoryRatio = &memory
	}
	return nil
}

// stage puts into dir what the processes need: the inputs of both sides as
// files, and the artifact, unless path is one.
func (o *benchOptions) stage(ctx context.Context, path, dir string) (art, model string, err error) {
	e, m, set, err := o.subject(path)
	if err != nil {
		return "", "", err
	}
	defer m.Close()
	in, err := tensors(m, set)
	if err != nil {
		return "", "", err
	}
	if err := writeInputs(filepath.Join(dir, "peer"), in); err != nil {
		return "", "", err
	}
	if e.name == "artifact" {
		return path, o.model, writeInputs(filepath.Join(dir, "own"), in)
	}
	b := compiledBackends[e.name]
	if b == nil || b().Build == nil {
		return "", "", fault.New(fault.Usage, "the backend %s makes no artifact that a process could open", e.name).Hint("use --backend cpu")
	}
	art = filepath.Join(dir, "artifact")
	if in, err = o.artifact(ctx, b(), m, set, art); err != nil {
		return "", "", err
	}
	return art, m.Path, writeInputs(filepath.Join(dir, "own"), in)
}

// artifact compiles a model for the shapes of a data set, and gives the inputs
// that the artifact takes.
func (o *benchOptions) artifact(ctx context.Context, b backend.Backend, m *onnxfile.Model, set *conformance.Set, dir string) ([]*tensor.Tensor, error) {
	x, in, _, err := conformance.Ready(m, set)
	if err != nil {
		return nil, err
	}
	p, t, err := o.engine.program(o.factory, b, x.Graph, o.engine.threads)
	if err != nil {
		return nil, err
	}
	opt, err := o.engine.build(o.factory, t, "model", o.engine.threads)
	if err != nil {
		return nil, err
	}
	return in, atomicfile.WriteDir(dir, false, func(tmp string) error { return b.Build(ctx, p, tmp, opt) })
}

func writeInputs(dir string, in []*tensor.Tensor) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	var named []data.Named
	for i, t := range in {
		named = append(named, data.Named{Name: "input " + itoa(i), Tensor: t})
	}
	return data.WriteSet(dir, "input", named)
}

// opened starts a process that opens one side and runs it.
func (o *benchOptions) opened(ctx context.Context, backend, path, inputs string) (footprint, error) {
	var f footprint
	argv := []string{path, "--once"}
	if backend != "" {
		argv = append(argv, "--backend", backend)
	}
	if hasInputs(inputs) {
		argv = append(argv, "--input", inputs)
	}
	r, err := o.start(ctx, argv)
	if err != nil {
		return f, err
	}
	defer r.close()
	line, err := r.answer()
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal([]byte(line), &f); err != nil {
		return f, fmt.Errorf("the worker said %q", line)
	}
	return f, nil
}

// hasInputs reports whether a folder holds inputs: a model may have none.
func hasInputs(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "input_0.pb"))
	return err == nil
}

// middle takes the median of each figure.
func middle(list []footprint) *footprint {
	at := func(of func(footprint) float64) float64 {
		slices.SortFunc(list, func(a, b footprint) int { return cmp.Compare(of(a), of(b)) })
		return of(list[len(list)/2])
	}
	return &footprint{
		Open:    at(func(f footprint) float64 { return f.Open }),
		First:   at(func(f footprint) float64 { return f.First }),
		Peak:    at(func(f footprint) float64 { return f.Peak }),
		Anon:    at(func(f footprint) float64 { return f.Anon }),
		File:    at(func(f footprint) float64 { return f.File }),
		Library: at(func(f footprint) float64 { return f.Library }),
	}
}

// once is what the process of a footprint does.
func (o *benchOptions) once(ctx context.Context, path string) error {
	e, m, set, err := o.subject(path)
	if err != nil {
		return err
	}
	defer m.Close()
	var f footprint
	before := resident()
	if e.name == "peer" {
		if _, err := openPeer(o.factory, o.engine.peer); err != nil {
			return err
		}
		f.Library = max(resident().now-before.now, 0)
	}
	debug.FreeOSMemory()
	reset := resetPeak()
	before = resident()
	begin := time.Now()
	s, err := e.prepare(ctx, o.factory, o.engine, m, set)
	if err != nil {
		return err
	}
	defer s.close()
	f.Open = float64(time.Since(begin).Nanoseconds()) / 1e6
	const runs = 4 // memory that only later runs take is memory too
	for i := range runs {
		if err := s.run(ctx); err != nil {
			return err
		}
		if i == 0 {
			f.First = float64(time.Since(begin).Nanoseconds()) / 1e6
		}
	}
	after := resident()
	if reset {
		f.Peak = after.peak - before.now
	}
	f.Anon, f.File = after.anon-before.anon, after.file-before.file
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	o.Printf("%s\n", line)
	return nil
}

// pages is a process's memory in MiB.
type pages struct{ now, peak, anon, file float64 }

// resident reads what the system says of this process; zeros where it says
// nothing.
func resident() pages {
	var p pages
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return p
	}
	fields := map[string]*float64{"VmRSS": &p.now, "VmHWM": &p.peak, "RssAnon": &p.anon, "RssFile": &p.file}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		if to := fields[name]; to != nil {
			if kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64); err == nil {
				*to = kb / 1024
			}
		}
	}
	return p
}

// resetPeak lets the peak begin at what is resident now.
func resetPeak() bool {
	return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) == nil
}

// peakMiB is the most memory that this process had, where the system tells it.
func peakMiB() float64 { return resident().peak }
