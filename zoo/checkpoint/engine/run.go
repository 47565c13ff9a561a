package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
)

// Options says how a job is run.
type Options struct {
	Jobs          int // goroutines; 0 means one per core
	Shard, Shards int // this run's share of the files, from 1; 0 means all
	Progress      func(bytes int64)
	// Copies are the tensors whose copies must be equal.
	Copies []Check
	// Sync makes each file durable before the next.
	Sync bool
	// Restart forgets what an earlier run left.
	Restart bool
}

// A Check names a tensor whose copies are compared.
type Check struct {
	Name   string
	Tensor *atom.Tensor
}

// Report tells what a run did.
type Report struct {
	Files    int   `json:"files"`
	Skipped  int   `json:"files_done_before"`
	Read     int64 `json:"bytes_read"`
	Written  int64 `json:"bytes_written"`
	Complete bool  `json:"complete"`
	// Sums are the sha256 of the slots of each file, once complete.
	Sums map[int][]string `json:"-"`
}

// large is the size from which the slots of a file are shared out.
const large = 8 << 20

// runner is a job being run.
type runner struct {
	*shared
	job   *Job
	opt   Options
	out   weights.Store
	log   *journal
	prior *done
	mu    sync.Mutex
	rep   Report
}

// task is a share of the work for one goroutine.
type task func(f *filler) error

// Run writes the files of a job into a store, which is the partial output, and
// goes on where an earlier run of the same job was killed.
func Run(ctx context.Context, job *Job, out weights.Store, opt Options) (*Report, error) {
	if opt.Shards == 0 {
		opt.Shard, opt.Shards = 1, 1
	}
	if opt.Jobs <= 0 {
		opt.Jobs = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &runner{job: job, opt: opt, out: out}
	r.shared = &shared{ctx: ctx, c: job.Source, handles: newHandles(job.Source.Store), sums: newSums(job.Source.Blobs)}
	defer r.handles.close()
	if err := r.begin(); err != nil {
		return nil, err
	}
	defer r.log.w.Close()
	if err := r.work(cancel); err != nil {
		return nil, err
	}
	if err := r.log.line(entry{All: true}); err != nil {
		return nil, err
	}
	return r.end()
}

func (r *runner) begin() error {
	plan := r.job.digest()
	prior, next, err := readJournals(r.out, plan)
	if errors.Is(err, errOtherPlan) || err == nil && next > 0 && r.opt.Restart {
		if err := r.clear(); err != nil {
			return err
		}
		prior, next, err = newDone(), 0, nil
	}
	if err != nil {
		return err
	}
	boot := bootID()
	if next > 0 && !r.opt.Sync && (len(prior.boots) > 1 || !prior.boots[boot]) {
		// The machine went down: the journal may be ahead of the disk.
		if err := r.clear(); err != nil {
			return err
		}
		prior, next = newDone(), 0
	}
	r.prior = prior
	shard := fmt.Sprintf("%dof%d", r.opt.Shard, r.opt.Shards)
	r.log, err = newJournal(r.out, fmt.Sprintf("journal-%s-%04d", shard, next), header{1, plan, boot, shard})
	return err
}

// clear removes everything of an earlier run.
func (r *runner) clear() error {
	list, err := r.out.List(".")
	if err != nil {
		return err
	}
	for _, f := range list {
		if err := r.out.Remove(f.Name); err != nil {
			return err
		}
	}
	return nil
}

// work runs all tasks on a few goroutines. The first error stops the rest.
func (r *runner) work(cancel context.CancelFunc) error {
	tasks := make(chan task, r.opt.Jobs)
	errs := make([]error, r.opt.Jobs+1)
	var wg sync.WaitGroup
	for i := range r.opt.Jobs {
		wg.Go(func() {
			f := newFiller(r.shared)
			for t := range tasks {
				if errs[i] != nil || r.ctx.Err() != nil {
					continue
				}
				if errs[i] = t(f); errs[i] != nil {
					cancel()
				}
			}
		})
	}
	errs[r.opt.Jobs] = r.produce(tasks)
	close(tasks)
	wg.Wait()
	for _, e := range errs {
		if e != nil && !errors.Is(e, context.Canceled) {
			return e
		}
	}
	for _, e := range errs {
		if e != nil {
			return e
		}
	}
	if err := r.ctx.Err(); err != nil {
		return err
	}
	return r.finishSums()
}

func (r *runner) mine(i int) bool { return i%r.opt.Shards == r.opt.Shard-1 }

func (r *runner) produce(tasks chan<- task) error {
	for i, c := range r.opt.Copies {
		if r.mine(i) {
			if err := r.send(tasks, func(f *filler) error { return f.checkCopies(c.Name, c.Tensor) }); err != nil {
				return err
			}
		}
	}
	for i := range r.job.Files {
		if !r.mine(i) {
			continue
		}
		r.rep.Files++
		if _, ok := r.prior.files[i]; ok {
			r.rep.Skipped++
			r.progress(r.job.Files[i].Bytes)
			continue
		}
		l, err := r.job.Files[i].Build()
		if err != nil {
			return fmt.Errorf("%s: %w", r.job.Files[i].Name, err)
		}
		if len(l.Slots) != len(l.Plan.Slots) {
			return fmt.Errorf("BUG: %s has %d slots and %d sources", r.job.Files[i].Name, len(l.Plan.Slots), len(l.Slots))
		}
		if l.Plan.Size < large {
			err = r.send(tasks, func(f *filler) error { return r.small(f, i, l) })
		} else {
			err = r.shareOut(tasks, i, l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) send(tasks chan<- task, t task) error {
	select {
	case tasks <- t:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

func (r *runner) progress(n int64) {
	if r.opt.Progress != nil {
		r.opt.Progress(n)
	}
}

// memory is a small file in memory, so that it is written at once.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(m.b)) {
		return 0, errors.New("write after the planned end")
	}
	return copy(m.b[off:], p), nil
}

// small writes a whole file.
func (r *runner) small(f *filler, i int, l *Layout) error {
	m := memory{make([]byte, l.Plan.Size)}
	fill := l.Plan.Begin(&m)
	sums := make([]string, len(l.Slots))
	for s := range l.Slots {
		h := sha256.New()
		if _, err := f.slot(&m, fill, l.Plan, s, &l.Slots[s], h); err != nil {
			return err
		}
		sums[s] = hex.EncodeToString(h.Sum(nil))
	}
	if err := fill.Close(); err != nil {
		return fmt.Errorf("%s: %w", r.job.Files[i].Name, err)
	}
	w, err := r.out.Create(r.job.Files[i].Name, l.Plan.Size)
	if err != nil {
		return err
	}
	if _, err := w.WriteAt(m.b, 0); err != nil {
		w.Close()
		return err
	}
	if err := r.closeFile(w); err != nil {
		return err
	}
	r.progress(r.job.Files[i].Bytes)
	return r.log.line(entry{File: i, Sums: sums})
}

func (r *runner) closeFile(w weights.Writer) error {
	if r.opt.Sync {
		if err := w.Sync(); err != nil {
			w.Close()
			return err
		}
	}
	return w.Close()
}

// shareOut makes tasks of the slots of a large file; the last one closes it.
func (r *runner) shareOut(tasks chan<- task, i int, l *Layout) error {
	name := r.job.Files[i].Name
	before := r.prior.slots[i]
	w, before, err := r.openLarge(name, l.Plan.Size, before)
	if err != nil {
		return err
	}
	fill := l.Plan.Begin(w)
	sums := make([]string, len(l.Slots))
	var batches [][]int
	size := int64(large)
	for s := range l.Slots {
		n := l.Plan.Slots[s].Bytes
		if e, ok := before[s]; ok {
			sums[s] = e.Sums[0]
			if err := fill.Written(s, 0, n, e.CRC); err != nil {
				return err
			}
			r.progress(n)
			continue
		}
		if size >= large {
			batches = append(batches, nil)
			size = 0
		}
		last := len(batches) - 1
		batches[last] = append(batches[last], s)
		size += n
	}
	if len(batches) == 0 {
		batches = [][]int{nil}
	}
	left := len(batches)
	for _, b := range batches {
		err := r.send(tasks, func(f *filler) error {
			for _, s := range b {
				h := sha256.New()
				crc, err := f.slot(w, fill, l.Plan, s, &l.Slots[s], h)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				sums[s] = hex.EncodeToString(h.Sum(nil))
				if err := r.slotDone(i, s, crc, sums[s], l); err != nil {
					return err
				}
			}
			r.mu.Lock()
			left--
			last := left == 0
			r.mu.Unlock()
			if !last {
				return nil
			}
			if err := fill.Close(); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if err := r.closeFile(w); err != nil {
				return err
			}
			return r.log.line(entry{File: i, Sums: sums})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// slotDone enters a finished slot of a large file. Tiny slots are not worth a
// line: they are written again.
func (r *runner) slotDone(i, s int, crc uint32, sum string, l *Layout) error {
	n := l.Plan.Slots[s].Bytes
	r.progress(n)
	if n < chunk {
		return nil
	}
	return r.log.line(entry{File: i, Slot: &s, CRC: crc, Sums: []string{sum}})
}

// openLarge opens a file where an earlier run left it, or makes it.
func (r *runner) openLarge(name string, size int64, before map[int]entry) (weights.Writer, map[int]entry, error) {
	if len(before) > 0 {
		if ro, ok := r.out.(reopener); ok {
			if w, err := ro.Reopen(name); err == nil {
				return w, before, nil
			}
		}
	}
	w, err := r.out.Create(name, size)
	return w, nil, err
}

// finishSums compares the checksums of all storages that were read.
func (r *runner) finishSums() error {
	var next sync.Mutex
	blob := int32(0)
	errs := make([]error, r.opt.Jobs)
	var wg sync.WaitGroup
	for i := range r.opt.Jobs {
		wg.Go(func() {
			f := newFiller(r.shared)
			for {
				next.Lock()
				b := blob
				blob++
				next.Unlock()
				if int(b) >= len(r.c.Blobs) || errs[i] != nil || r.ctx.Err() != nil {
					return
				}
				errs[i] = r.sums.finish(b, f)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (r *runner) end() (*Report, error) {
	r.rep.Read, r.rep.Written = r.read.Load(), r.written.Load()
	d, _, err := readJournals(r.out, r.job.digest())
	if err != nil {
		return nil, err
	}
	r.rep.Complete = len(d.files) == len(r.job.Files)
	for s := range r.opt.Shards {
		if !d.all[fmt.Sprintf("%dof%d", s+1, r.opt.Shards)] {
			r.rep.Complete = false
		}
	}
	r.rep.Sums = d.files
	return &r.rep, nil
}
