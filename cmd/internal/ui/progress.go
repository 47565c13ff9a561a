package ui

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// ProgressMode is what --progress asks for.
type ProgressMode string

// The progress modes: auto is a bar where a terminal listens and nothing else.
const (
	ProgressAuto  ProgressMode = "auto"
	ProgressBar   ProgressMode = "bar"
	ProgressPlain ProgressMode = "plain"
	ProgressNone  ProgressMode = "none"
)

// Progress shows how far a long command is. All methods are safe on nil and
// from several goroutines.
type Progress struct {
	mu    sync.Mutex
	bar   *progressbar.ProgressBar
	plain io.Writer
	label string
	done  int
	total int
	last  time.Time
}

// plainEvery spaces the lines of --progress plain.
const plainEvery = 5 * time.Second

// Progress starts a progress display on stderr; total 0 means unknown. The
// result is nil where nobody listens.
func (s *Streams) Progress(label string, total int) *Progress {
	mode := s.Mode
	if mode == "" || mode == ProgressAuto {
		mode = ProgressNone
		if s.ErrTTY && !s.CI {
			mode = ProgressBar
		}
	}
	if s.Quiet || mode == ProgressNone {
		return nil
	}
	if mode == ProgressPlain {
		return &Progress{plain: s.Err, label: label, total: total, last: time.Now()}
	}
	n := total
	if n == 0 {
		n = -1
	}
	return &Progress{total: total, bar: progressbar.NewOptions(n,
		progressbar.OptionSetWriter(s.Err),
		progressbar.OptionSetDescription(Clean(label)),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionEnableColorCodes(false),
		progressbar.OptionFullWidth(),
		progressbar.OptionSetRenderBlankState(true),
	)}
}

// Add moves the display forward.
func (p *Progress) Add(n int) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	if p.bar != nil {
		_ = p.bar.Add(n)
		return
	}
	if time.Since(p.last) >= plainEvery {
		p.last = time.Now()
		p.line()
	}
}

// Describe changes the text, such as the name of the current step.
func (p *Progress) Describe(label string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.label = label
	if p.bar != nil {
		p.bar.Describe(Clean(label))
	}
}

// Done removes the display, so that results can be printed.
func (p *Progress) Done() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear()
		_ = p.bar.Exit()
		return
	}
	p.line()
}

func (p *Progress) line() {
	if p.total > 0 {
		fmt.Fprintf(p.plain, "%s: %d of %d\n", Clean(p.label), p.done, p.total)
		return
	}
	fmt.Fprintf(p.plain, "%s: %d\n", Clean(p.label), p.done)
}
