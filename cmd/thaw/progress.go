package main

import (
	"cmp"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/thawfs/thaw/cmd/thaw/internal/logs"
	"github.com/thawfs/thaw/index"
)

// progress shows how far long work is: a bar for each stage, only where stderr is a terminal and
// nobody asked for silence. The zero value shows nothing.
type progress struct {
	a *app

	mu    sync.Mutex // guards what follows
	stage string
	bar   *progressbar.ProgressBar
}

// progress begins to show long work. The caller ends it by done.
func (a *app) progress() *progress {
	if a.quiet || a.json || a.logFormat != logs.Plain || !a.stderrIsTerminal() {
		return &progress{}
	}
	return &progress{a: a}
}

// set says how far a stage is. A new stage begins a new bar. It may be called by many goroutines.
func (p *progress) set(q index.Progress) {
	if p.a == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if q.Stage != p.stage || p.bar == nil {
		p.clear()
		p.stage = q.Stage
		p.bar = progressbar.NewOptions64(cmp.Or(max(q.Total, 0), -1),
			progressbar.OptionSetWriter(p.a.stderr),
			progressbar.OptionSetDescription(q.Stage),
			progressbar.OptionShowBytes(q.Unit == "bytes"),
			progressbar.OptionUseIECUnits(true),
			progressbar.OptionShowCount(),
			progressbar.OptionSetWidth(30),
			progressbar.OptionThrottle(barInterval),
			progressbar.OptionClearOnFinish(),
		)
	}
	if q.Total > 0 && q.Total != p.bar.GetMax64() {
		p.bar.ChangeMax64(q.Total)
	}
	_ = p.bar.Set64(q.Done) // a bar that cannot be drawn is no reason to stop the work
}

// done removes the bar.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
		_ = p.bar.Exit()
		p.bar = nil
	}
}

// barInterval keeps a bar from costing more than the work that it shows.
const barInterval = 100 * time.Millisecond
