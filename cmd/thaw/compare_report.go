package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/report"
)

// agreementOf compares the stalls that the VMM saw at its vCPUs with the requests that the server of
// its memory saw, over the second of a restore in which they differ most. A request is seen from its
// arrival to its answer; the vCPU also waits to be put to sleep and woken, some 20 us.
func agreementOf(m report.Method, vcpus []wss.Interval) report.Agreement {
	return report.Agree(report.NewTimeline(vcpus), report.NewTimeline(m.Stalls), m.Ready, m.End, time.Second,
		report.Tolerance{PerRequest: 20 * time.Microsecond, Requests: m.Lazy, Edge: time.Millisecond,
			Share: 0.1})
}

// report prints the table and writes what was asked for.
func (c *comparison) report() error {
	r := c.asReport()
	if err := c.writeFiles(r); err != nil {
		return err
	}
	c.stage("done")
	if c.a.json {
		v, err := c.asJSON(r)
		if err != nil {
			return err
		}
		return c.a.printJSON(v)
	}
	if err := r.Table(c.a.stdout); err != nil {
		return err
	}
	c.a.printf("\n")
	for _, f := range []struct{ what, path string }{
		{"figure", c.o.figure}, {"report", c.o.html},
	} {
		if f.path != "" {
			c.a.printf("%s: %s\n", f.what, f.path)
		}
	}
	if c.keep {
		c.a.printf("kept: %s (try: thaw mount %s MNT)\n", c.dir, c.store)
	}
	return nil
}

// asReport puts the restores together.
func (c *comparison) asReport() report.Report {
	r := report.Report{Title: "Restores of " + c.guestWords()}
	for _, x := range c.results {
		r.GuestPages = x.pages
		r.Methods = append(r.Methods, x.method)
	}
	add := func(name, format string, args ...any) {
		r.Facts = append(r.Facts, report.Fact{Name: name, Value: fmt.Sprintf(format, args...)})
	}
	add("guest", "%s", c.guestWords())
	add("disk", "%s", c.o.disk.name)
	add("window", "%v after the first instruction", c.o.window)
	if c.o.repeat > 1 {
		add("repetitions", "%d of each method, in random order (seed %d)", c.o.repeat, c.o.seed)
	}
	if c.o.drop > 0 {
		add("dropped", "%g %% of each working set, at random", c.o.drop)
	}
	if s := c.saved.Scan; s != nil {
		add("access bits", "%s", s.Way)
	}
	if t := c.saved.Trace; t != nil {
		add("trace", "%s; %.3g s", t.Way, t.Seconds)
	}
	for _, x := range c.results {
		if x.method.Lazy > 0 && len(x.vcpus) > 0 {
			add("stalls of "+x.method.Name, "by vCPU against by request: %s",
				agreementOf(x.method, x.vcpus))
		}
	}
	return r
}

// guestWords says what is restored.
func (c *comparison) guestWords() string {
	if c.o.checkpoint != "" {
		return filepath.Base(c.checkpoint)
	}
	words := append([]string{c.o.guest.program}, c.o.guest.args...)
	return strings.Join(words, " ") + " with " + size(int64(c.o.guest.memory))
}

// writeFiles writes the figure and the page that were asked for.
func (c *comparison) writeFiles(r report.Report) (err error) {
	for _, path := range []*string{&c.o.figure, &c.o.html} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if c.o.figure != "" {
		if err := r.Figure(c.o.figure); err != nil {
			return err
		}
	}
	if c.o.html == "" {
		return nil
	}
	f, err := os.Create(c.o.html)
	if err != nil {
		return err
	}
	return errors.Join(r.WriteHTML(f), f.Close())
}

// asJSON is the report of package wss, with what only this command knows.
func (c *comparison) asJSON(r report.Report) (map[string]any, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	v["guest"], v["disk"] = c.guestWords(), c.o.disk.name
	if c.o.figure != "" {
		v["figure"] = c.o.figure
	}
	if c.o.html != "" {
		v["html"] = c.o.html
	}
	if c.o.checkpoint == "" {
		v["checkpoint"] = c.saved
		v["kernel_share_before"] = c.kernelShare
	}
	return v, nil
}
