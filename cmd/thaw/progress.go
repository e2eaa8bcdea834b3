package main

import (
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows how far long work is: a bar for each stage, only where stderr is a terminal and
// nobody asked for silence. The zero value shows nothing.
type progress struct {
	a     *app
	stage string
	bar   *progressbar.ProgressBar
}

// progress begins to show long work. The caller ends it by done.
func (a *app) progress() *progress {
	if a.quiet || a.json || !a.stderrIsTerminal() {
		return &progress{}
	}
	return &progress{a: a}
}

// set says that a stage has come to done of total (bytes when inBytes, else things). A new stage
// begins a new bar; total 0 means not known.
func (p *progress) set(stage string, done, total int64, inBytes bool) {
	if p.a == nil {
		return
	}
	if stage != p.stage || p.bar == nil {
		p.done()
		p.stage = stage
		p.bar = p.a.newBar(stage, total, inBytes)
	}
	if total > 0 && total != p.bar.GetMax64() {
		p.bar.ChangeMax64(total)
	}
	_ = p.bar.Set64(done) // a bar that cannot be drawn is no reason to stop the work
}

// done removes the bar.
func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Clear()
		_ = p.bar.Exit()
		p.bar = nil
	}
}

func (a *app) newBar(stage string, total int64, inBytes bool) *progressbar.ProgressBar {
	if total <= 0 {
		total = -1
	}
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(a.stderr),
		progressbar.OptionSetDescription(stage),
		progressbar.OptionShowBytes(inBytes),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(barInterval),
		progressbar.OptionClearOnFinish(),
	)
}

// barInterval keeps a bar from costing more than the work that it shows.
const barInterval = 100 * time.Millisecond
