package checkpoint

import (
	"context"
	"runtime/debug"
	"strings"

	"github.com/lathe-ml/lathe/compiler/tensor"
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
	p, err := newPlace(out, t.single(), o)
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

// parseDType reads an element type by the names that people use.
func parseDType(name string) (tensor.DType, bool) {
	alias := map[string]string{"fp32": "f32", "fp16": "f16", "fp64": "f64", "float": "f32", "half": "f16", "float32": "f32", "float16": "f16", "bfloat16": "bf16", "float64": "f64"}
	n := strings.ToLower(name)
	if a, ok := alias[n]; ok {
		n = a
	}
	return tensor.ParseDType(n)
}
