package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// StateDir is the folder inside the partial output that holds the journals.
const StateDir = ".lathe"

// header is the first line of a journal.
type header struct {
	Journal int    `json:"journal"`
	Plan    string `json:"plan"`
	Boot    string `json:"boot"`
	Shard   string `json:"shard"`
}

// entry is a line of a journal: a finished file with the sums of its slots, or
// one finished slot of a large file.
type entry struct {
	File int      `json:"f"`
	Name string   `json:"name,omitempty"`
	Slot *int     `json:"slot,omitempty"`
	CRC  uint32   `json:"crc,omitempty"`
	Sums []string `json:"sha256"`
	// All tells that the shard is complete.
	All bool `json:"all,omitempty"`
}

// done is what journals say.
type done struct {
	files map[int][]string
	slots map[int]map[int]entry
	all   map[string]bool // shards
	boots map[string]bool
}

func newDone() *done {
	return &done{files: map[int][]string{}, slots: map[int]map[int]entry{}, all: map[string]bool{}, boots: map[string]bool{}}
}

func (d *done) add(e entry, shard string) {
	switch {
	case e.All:
		d.all[shard] = true
	case e.Slot == nil:
		d.files[e.File] = e.Sums
	default:
		if d.slots[e.File] == nil {
			d.slots[e.File] = map[int]entry{}
		}
		d.slots[e.File][*e.Slot] = e
	}
}

// errOtherPlan tells that the partial output belongs to another conversion.
var errOtherPlan = errors.New("the partial output belongs to another conversion")

// readJournals reads all journals of a partial output. A last line that was cut
// by a kill does not count.
func readJournals(s weights.Store, plan string) (*done, int, error) {
	d := newDone()
	list, err := s.List(StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return d, 0, nil
	} else if err != nil {
		return nil, 0, err
	}
	next := 0
	for _, f := range list {
		if !strings.HasPrefix(path.Base(f.Name), "journal-") {
			continue
		}
		next++
		data, err := weights.ReadFile(s, f.Name, 1<<31)
		if err != nil {
			return nil, 0, err
		}
		lines := bytes.Split(data, []byte("\n"))
		var h header
		if len(lines) < 2 || json.Unmarshal(lines[0], &h) != nil {
			continue // killed while it was begun
		}
		if h.Plan != plan {
			return nil, 0, errOtherPlan
		}
		d.boots[h.Boot] = true
		for _, l := range lines[1 : len(lines)-1] {
			var e entry
			if len(l) == 0 || l[0] == 0 || json.Unmarshal(l, &e) != nil {
				break
			}
			d.add(e, h.Shard)
		}
	}
	return d, next, nil
}

// journal is a journal being written.
type journal struct {
	mu  sync.Mutex
	w   weights.Writer
	off int64
}

func newJournal(s weights.Store, name string, h header) (*journal, error) {
	w, err := s.Create(weights.Join(StateDir, name), 0)
	if err != nil {
		return nil, err
	}
	j := &journal{w: w}
	return j, j.line(h)
}

func (j *journal) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.w.WriteAt(b, j.off); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	j.off += int64(len(b))
	return nil
}

// bootID names the running system: after a crash of the machine what a journal
// says may be ahead of the disk, and is checked.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// digest names a plan: the source's contents as far as they are known without
// reading them, the options, and the files.
func (j *Job) digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s %s\n", j.Options, j.Source.Format, j.Source.Folder)
	for _, b := range j.Source.Blobs {
		fmt.Fprintf(h, "%s %d %d %08x\n", b.File, b.Offset, b.Bytes, b.Sum)
	}
	for _, p := range j.Source.Params {
		fmt.Fprintf(h, "%s %v\n", p.Name, p.Aliases)
		for _, s := range p.States {
			fmt.Fprintf(h, "%s %s %v %s\n", s.Name, s.DType, s.Shape, s.DeltaName)
		}
	}
	for _, f := range j.Files {
		fmt.Fprintf(h, "%s %d\n", f.Name, f.Bytes)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// reopener is a store whose files can be written on where they were left.
type reopener interface {
	Reopen(name string) (weights.Writer, error)
}
