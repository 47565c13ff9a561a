package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/weights"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
)

// place is where an output comes to be.
type place struct {
	store         *weights.OS // the folder above
	partial, name string
	single        bool
	force         bool
	shared        bool   // other machines write their shares
	lock          string // names this process while it runs
}

func newPlace(out string, single bool, o RunOptions) (*place, error) {
	abs, err := filepath.Abs(out)
	if err != nil {
		return nil, err
	}
	name := filepath.Base(abs)
	s, err := weights.CreateOS(filepath.Dir(abs))
	if err != nil {
		return nil, fault.New(fault.Usage, "the folder of the output cannot be made: %w", err).InFile(out)
	}
	p := &place{store: s, name: name, partial: "." + name + ".lathe-partial", single: single, force: o.Force, shared: o.Shards > 1}
	if exists(s, name) && !o.Force {
		s.Close()
		return nil, fault.New(fault.Usage, "output exists already").InFile(out).Hint("give another -o, or --force to replace it")
	}
	if err := p.hold(fmt.Sprintf(".%s.lathe-lock-%dof%d", name, max(o.Shard, 1), max(o.Shards, 1))); err != nil {
		s.Close()
		return nil, err
	}
	return p, nil
}

func (p *place) close() {
	os.Remove(p.store.Path(p.lock))
	p.store.Close()
}

// hold keeps two processes of one machine from writing the same share. What a
// killed process left does not count.
func (p *place) hold(lock string) error {
	p.lock = lock
	host, _ := os.Hostname()
	file := p.store.Path(lock)
	if b, err := os.ReadFile(file); err == nil {
		var pid int
		var on string
		if n, _ := fmt.Sscan(string(b), &pid, &on); n == 2 && on == host && pid != os.Getpid() && alive(pid) {
			return fault.New(fault.Usage, "process %d is writing the same output", pid).InFile(p.name)
		}
	}
	if err := os.WriteFile(file, fmt.Appendf(nil, "%d %s\n", os.Getpid(), host), 0o666); err != nil {
		return fault.New(fault.Usage, "the folder of the output cannot be written: %w", err).InFile(p.name)
	}
	return nil
}

func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	return err == nil && p.Signal(syscall.Signal(0)) == nil
}

// failed removes the partial output when going on could not help: a damaged
// source stays damaged. After an interrupt or a full disk it stays.
func (p *place) failed(ctx context.Context, err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fault.New(fault.Usage, "the disk is full: %w", err).InFile(p.name).Hint("make room and give the same command again: it goes on where it was")
	}
	if !p.shared && ctx.Err() == nil && fault.As(err) != nil {
		return errors.Join(err, p.store.Remove(p.partial))
	}
	return err
}

// manifestFile is a file in lathe-manifest.json.
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
