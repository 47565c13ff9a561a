package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
)

// RunOptions says how a conversion is run.
type RunOptions struct {
	Jobs          int
	Shard, Shards int
	DryRun        bool
	Force         bool
	Sync          bool
	// FirstReplica takes the first of copies without comparing them.
	FirstReplica bool
	// Begin is told the bytes of the whole plan, Progress each further part.
	Begin    func(bytes int64)
	Progress func(bytes int64)
}

// Result tells what a conversion did or, in a dry run, would do.
type Result struct {
	Output   string        `json:"output"`
	Format   string        `json:"format"`
	Params   int           `json:"parameters"`
	Files    int           `json:"files"`
	Bytes    int64         `json:"bytes"`
	Read     int64         `json:"bytes_read"`
	Written  int64         `json:"bytes_written"`
	Resumed  int           `json:"files_done_before"`
	Complete bool          `json:"complete"`
	DryRun   bool          `json:"dry_run,omitempty"`
	Warnings []string      `json:"warnings,omitempty"`
	Plan     []PlannedFile `json:"plan,omitempty"`
}

// PlannedFile is an output file of a dry run.
type PlannedFile struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// memoryLimit is what the garbage collector keeps to; buffers are few and
// fixed, so it is only felt with plans of very many files.
const memoryLimit = 96 << 20

// Convert writes a checkpoint in another format or layout. The output appears
// under its name only when it is complete.
func Convert(ctx context.Context, c *atom.Checkpoint, out string, t Target, o RunOptions) (*Result, error) {
	files, err := t.plan(c)
	if err != nil {
		return nil, err
	}
	res := &Result{Output: out, Format: t.Format, Params: len(c.Params), Files: len(files), DryRun: o.DryRun, Warnings: c.Warnings}
	for _, f := range files {
		res.Bytes += f.Bytes
	}
	if o.DryRun {
		for _, f := range files {
			res.Plan = append(res.Plan, PlannedFile{f.Name, f.Bytes})
		}
		return res, nil
	}
	p, err := newPlace(out, t.single(), o.Force)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if o.Begin != nil {
		o.Begin(res.Bytes)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(memoryLimit))
	job := &engine.Job{Source: c, Files: files, Options: t.describe()}
	eo := engine.Options{Jobs: o.Jobs, Shard: o.Shard, Shards: o.Shards, Progress: o.Progress, Sync: o.Sync}
	if !o.FirstReplica {
		eo.Copies = copies(c, t)
	}
	rep, err := engine.Run(ctx, job, engine.Folder(p.store, p.partial), eo)
	if err != nil {
		return nil, p.failed(ctx, err)
	}
	res.Read, res.Written, res.Resumed, res.Complete = rep.Read, rep.Written, rep.Skipped, rep.Complete
	if !rep.Complete {
		return res, nil
	}
	return res, p.finish(job, rep, t)
}

// copies lists the tensors that are held more than once.
func copies(c *atom.Checkpoint, t Target) []engine.Check {
	var out []engine.Check
	for _, p := range c.Params {
		for _, s := range p.States {
			if len(s.Copies) > 0 && !s.Average && t.uses(p, s.Name) {
				out = append(out, engine.Check{Name: p.Name + ", " + s.Name, Tensor: s.Tensor})
			}
		}
	}
	return out
}

// place is where an output comes to be.
type place struct {
	store         *weights.OS // the folder above
	partial, name string
	single        bool
	force         bool
	lock          string
}

func newPlace(out string, single, force bool) (*place, error) {
	abs, err := filepath.Abs(out)
	if err != nil {
		return nil, err
	}
	name := filepath.Base(abs)
	s, err := weights.CreateOS(filepath.Dir(abs))
	if err != nil {
		return nil, fault.New(fault.Usage, "the folder of the output cannot be made: %w", err).InFile(out)
	}
	p := &place{store: s, name: name, partial: "." + name + ".lathe-partial", single: single, force: force}
	if exists(s, name) && !force {
		s.Close()
		return nil, fault.New(fault.Usage, "output exists already").InFile(out).Hint("give another -o, or --force to replace it")
	}
	return p, nil
}

func (p *place) close() { p.store.Close() }

// failed removes the partial output when going on could not help: a damaged
// source stays damaged. After an interrupt or a full disk it stays.
func (p *place) failed(ctx context.Context, err error) error {
	if ctx.Err() == nil && fault.As(err) != nil {
		return errors.Join(err, p.store.Remove(p.partial))
	}
	return err
}

// manifest is lathe-manifest.json.
type manifest struct {
	Lathe  int            `json:"lathe_checkpoint_manifest"`
	Format string         `json:"format"`
	Files  []manifestFile `json:"files"`
}

type manifestFile struct {
	Name    string           `json:"name"`
	Tensors []manifestTensor `json:"tensors,omitempty"`
}

type manifestTensor struct {
	Name   string  `json:"name,omitempty"`
	DType  string  `json:"dtype"`
	Shape  []int64 `json:"shape"`
	SHA256 string  `json:"sha256"`
}

// Manifest is the name of the list of checksums in an output folder.
const Manifest = "lathe-manifest.json"

// writeManifest streams the manifest: it can be long.
func (p *place) writeManifest(job *engine.Job, rep *engine.Report, t Target) error {
	w, err := os.Create(p.store.Path(weights.Join(p.partial, Manifest)))
	if err != nil {
		return err
	}
	b := newLines(w)
	b.print("{\"lathe_checkpoint_manifest\":1,\"format\":" + quote(t.Format) + ",\"files\":[")
	for i, f := range job.Files {
		l, err := f.Build()
		if err != nil {
			w.Close()
			return err
		}
		m := manifestFile{Name: f.Name}
		for s, slot := range l.Slots {
			if s < len(rep.Sums[i]) {
				m.Tensors = append(m.Tensors, manifestTensor{slot.Name, slot.DType.String(), slot.Shape, rep.Sums[i][s]})
			}
		}
		line, err := json.Marshal(m)
		if err != nil {
			w.Close()
			return err
		}
		sep := ","
		if i == len(job.Files)-1 {
			sep = ""
		}
		b.print("\n" + string(line) + sep)
	}
	b.print("\n]}\n")
	return errors.Join(b.flush(), w.Close())
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// finish puts the complete output under its name.
func (p *place) finish(job *engine.Job, rep *engine.Report, t Target) error {
	if err := p.writeManifest(job, rep, t); err != nil {
		return err
	}
	old := "." + p.name + ".lathe-old"
	if exists(p.store, p.name) {
		if !p.force {
			return fault.New(fault.Usage, "output %s has appeared meanwhile", p.name).Hint("give another -o, or --force to replace it")
		}
		if err := p.store.Remove(old); err != nil {
			return err
		}
		if err := p.store.Rename(p.name, old); err != nil {
			return err
		}
	}
	if err := p.rename(job); err != nil {
		return fmt.Errorf("put the output in place: %w", err)
	}
	return p.store.Remove(old)
}

// rename moves the partial output to its name. The journals go last: until they
// are gone a further run sees that all is done.
func (p *place) rename(job *engine.Job) error {
	if !p.single {
		if err := p.store.Rename(p.partial, p.name); err != nil {
			return err
		}
		return p.store.Remove(weights.Join(p.name, engine.StateDir))
	}
	if err := p.store.Rename(weights.Join(p.partial, Manifest), p.name+".manifest.json"); err != nil {
		return err
	}
	if err := p.store.Rename(weights.Join(p.partial, job.Files[0].Name), p.name); err != nil {
		return err
	}
	return p.store.Remove(p.partial)
}

// parseDType reads an element type by the names that people use.
func parseDType(name string) (tensor.DType, bool) {
	alias := map[string]string{"fp32": "f32", "fp16": "f16", "fp64": "f64", "float": "f32", "half": "f16", "float32": "f32", "float16": "f16", "bfloat16": "bf16", "float64": "f64"}
	n := strings.ToLower(name)
	if a, ok := alias[n]; ok {
		n = a
	}
	return tensor.ParseDType(n)
}
