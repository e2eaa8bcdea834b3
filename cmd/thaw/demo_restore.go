package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/thawfs/thaw/wss"
)

// demoResult is what one restore showed.
type demoResult struct {
	row      int // in the table
	method   wss.Method
	progress demoProgress
}

// restore restores the machine from a mount of its own, whose page cache is cold: of the mount
// because it is new, of the packs because they are dropped.
func (d *demo) restore(ctx context.Context, m demoMethod) (r demoResult, err error) {
	server, err := d.serve(ctx, m)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	ref, err := resolveMount(d.mnt)
	if err != nil {
		return r, err
	}
	client, err := ref.server(ctx)
	if err != nil {
		return r, err
	}
	if err := client.Call(ctx, verbDrop, dropRequest{Name: demoName, Packs: true}, nil,
		nil); err != nil {
		return r, fmt.Errorf("make it cold: %w", err)
	}
	runs := d.o.window
	if m.record {
		runs = d.recordWindow()
	}
	d.stage("%s (%v)", m.says, runs)
	asked := time.Now()
	machine, err := d.restoreMachine(ctx, filepath.Join(d.mnt, demoName), asked, runs)
	if err != nil {
		return r, err
	}
	stalls, err := d.stalls(asked)
	if err != nil {
		return r, err
	}
	r = demoResult{
		row: m.row,
		method: wss.NewMethod(m.name, machine.counts, machine.ready,
			machine.ready+machine.counts.Window, stalls),
		progress: machine.progress,
	}
	d.stage("%s", r.words())
	if !m.record {
		return r, nil
	}
	rec, err := call[recordReply](ctx, client, verbRecord, nameRequest{Name: demoName}, nil)
	if err != nil {
		return r, fmt.Errorf("record the working set: %w", err)
	}
	d.stage("recorded the working set: %s pages in %s runs", count(rec.Pages), count(rec.Runs))
	return r, nil
}

// words sum up a restore.
func (r demoResult) words() string {
	m := r.method
	return fmt.Sprintf("%s: ran after %.3f s; %s pages prefetched, %s of them used, %s fetched on "+
		"demand",
		m.Name, m.Ready.Seconds(), count(m.Prefetched), count(m.Skipped), count(m.Lazy))
}

// serve mounts the store with a method's policy.
func (d *demo) serve(ctx context.Context, m demoMethod) (*child, error) {
	args := []string{"mount", d.store, d.mnt, "--restore=" + m.policy.String(),
		"--record-window=" + d.recordWindow().String()}
	c := newChild("server", args...)
	if err := c.startServing(ctx); err != nil {
		return nil, err
	}
	d.children = append(d.children, c)
	return c, nil
}

// stalls reads from the mount when somebody waited for a page of the image, on a clock that began
// at asked.
func (d *demo) stalls(asked time.Time) ([]wss.Interval, error) {
	text, err := os.ReadFile(filepath.Join(d.mnt, demoName, "stats.json"))
	if err != nil {
		return nil, err
	}
	var stats struct {
		Stalls wss.StallSnapshot `json:"stalls"`
	}
	if err := json.Unmarshal(text, &stats); err != nil {
		return nil, fmt.Errorf("stats.json: %w", err)
	}
	return stats.Stalls.Intervals(asked), nil
}
