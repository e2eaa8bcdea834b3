package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// lab runs thaw and keeps what it says.
type lab struct {
	thaw   string
	dir    string // of its own, removed at the end
	out    string // "": nothing is kept
	stderr io.Writer
}

// outcome is what a job showed.
type outcome struct {
	job
	comparison comparison
	losses     []loss
}

// loss is a restore with a part of the set lost.
type loss struct {
	percent float64
	method  method
}

func newLab(ctx context.Context, o options, stderr io.Writer) (l *lab, err error) {
	l = &lab{thaw: o.thaw, out: o.out, stderr: stderr}
	if l.out != "" {
		if err := os.MkdirAll(l.out, 0o755); err != nil {
			return nil, err
		}
	}
	if l.dir, err = os.MkdirTemp("", "thaw-paper-"); err != nil {
		return nil, err
	}
	if l.thaw == "" {
		if l.thaw, err = build(ctx, l.dir, stderr); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	return l, nil
}

func (l *lab) close() error { return os.RemoveAll(l.dir) }

// all runs the jobs, one after the other: they would disturb each other. One that fails is told,
// and does not take away what the others find in an hour.
func (l *lab) all(ctx context.Context, jobs []job) (all []outcome, err error) {
	var errs []error
	for i, j := range jobs {
		if ctx.Err() != nil {
			return all, errors.Join(append(errs, ctx.Err())...)
		}
		fmt.Fprintf(l.stderr, "== %d of %d: %s on %s\n", i+1, len(jobs), j.workload.name, j.disk)
		o, err := l.one(ctx, j)
		if err != nil {
			err = fmt.Errorf("%s on %s: %w", j.workload.name, j.disk, err)
			fmt.Fprintf(l.stderr, "== %v\n", err)
			errs = append(errs, err)
			continue
		}
		all = append(all, o)
	}
	return all, errors.Join(errs...)
}

// one runs a job. The checkpoint is kept only for those that lose a part of its set.
func (l *lab) one(ctx context.Context, j job) (o outcome, err error) {
	o.job = j
	keep := ""
	if len(j.drops) > 0 {
		keep = filepath.Join(l.dir, j.name())
		defer func() { err = errors.Join(err, os.RemoveAll(keep)) }()
	}
	if o.comparison, err = l.compare(ctx, j.name(), j.compare(keep)); err != nil {
		return o, err
	}
	for _, percent := range j.drops {
		fmt.Fprintf(l.stderr, "== %g %% of the set lost\n", percent)
		c, err := l.compare(ctx, fmt.Sprintf("%s-drop-%g", j.name(), percent),
			j.dropped(filepath.Join(keep, "checkpoint"), percent))
		if err != nil {
			return o, err
		}
		m, ok := c.find("trace")
		if !ok {
			return o, fmt.Errorf("a comparison without the method that was asked for")
		}
		o.losses = append(o.losses, loss{percent, m})
	}
	return o, nil
}

// cleanUp is how long thaw has to end its machines and take its mounts away.
const cleanUp = time.Minute

// compare runs thaw once and reads what it found.
func (l *lab) compare(ctx context.Context, name string, args []string) (comparison, error) {
	cmd := exec.CommandContext(ctx, l.thaw, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = cleanUp
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, l.stderr
	if err := cmd.Run(); err != nil {
		return comparison{}, fmt.Errorf("thaw %s: %w", strings.Join(args, " "), err)
	}
	if err := l.save(name+".json", text.Bytes()); err != nil {
		return comparison{}, err
	}
	return parseComparison(text.Bytes())
}

func (l *lab) save(name string, text []byte) error {
	if l.out == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(l.out, name), text, 0o644)
}

// finish prints the tables, and keeps them and those of README.md.
func (l *lab) finish(stdout io.Writer, outcomes []outcome) error {
	fault, err := minorFault(l.dir)
	if err != nil {
		return fmt.Errorf("measure a minor fault: %w", err)
	}
	text := tables(outcomes, fault)
	if _, err := io.WriteString(stdout, text); err != nil {
		return err
	}
	return errors.Join(l.save("tables.md", []byte(text)),
		l.save("readme.md", []byte(digest(outcomes))))
}
