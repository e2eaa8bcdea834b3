package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/outfile"
	"github.com/thawfs/thaw/wss/report"
)

// Result is what a comparison found.
type Result struct {
	report     report.Report
	o          Options // with absolute paths of the files that were written
	guest      string  // what was restored
	saved      saved
	dir, store string // that were kept; "": nothing was
}

// result puts the restores together and writes the figure and the page.
func (c *Comparison) result() (*Result, error) {
	r := &Result{o: c.o, guest: c.guestName(), saved: c.saved}
	if c.keep {
		r.dir, r.store = c.dir, c.store
	}
	r.report = c.report()
	return r, r.writeFiles()
}

// guestName says what is restored.
func (c *Comparison) guestName() string {
	if c.o.Checkpoint != "" {
		return filepath.Base(c.checkpoint)
	}
	return c.o.Guest.String()
}

// report is the table with the facts about it.
func (c *Comparison) report() report.Report {
	r := report.Report{Title: "Restores of " + c.guestName(), Warm: &c.warm.method}
	for _, o := range c.outcomes {
		r.GuestPages = o.pages
		r.Methods = append(r.Methods, o.method)
	}
	add := func(name, format string, args ...any) {
		r.Facts = append(r.Facts, report.Fact{Name: name, Value: fmt.Sprintf(format, args...)})
	}
	detail := func(name, format string, args ...any) {
		add(name, format, args...)
		r.Facts[len(r.Facts)-1].Detail = true
	}
	add("guest", "%s", c.guestName())
	add("disk", "%s", c.o.Disk)
	add("window", "%v after the first instruction", c.o.Window)
	if c.o.Repeat > 1 {
		add("repetitions", "%d of each method, in random order (seed %d)", c.o.Repeat, c.o.Seed)
	}
	if c.o.Drop > 0 {
		add("dropped", "%g %% of each working set, at random", c.o.Drop)
	}
	if s := c.saved.checkpoint.Scan; s != nil {
		detail("access bits", "%s", s.Way)
	}
	if t := c.saved.checkpoint.Trace; t != nil {
		detail("trace", "%s; %.3g s", t.Way, t.Seconds)
	}
	for _, o := range c.outcomes {
		if o.method.Lazy > 0 && len(o.vcpus) > 0 {
			detail("stalls of "+o.method.Name, "by vCPU against by request: %s", o.agreement())
		}
	}
	return r
}

// agreement compares the stalls that the VMM saw at its vCPUs with the requests that the server of
// its memory saw, over the second of a restore in which they differ most. A request is seen from its
// arrival to its answer; the vCPU also waits to be put to sleep and woken, some 20 us.
func (o outcome) agreement() report.Agreement {
	m := o.method
	return report.Agree(report.NewTimeline(o.vcpus), report.NewTimeline(m.Stalls), m.Ready, m.End, time.Second,
		report.Tolerance{PerRequest: 20 * time.Microsecond, Requests: m.Lazy, Edge: time.Millisecond,
			Share: 0.1})
}

// writeFiles writes the figure and the page that were asked for.
func (r *Result) writeFiles() (err error) {
	for _, f := range []struct {
		path  *string
		write func(io.Writer) error
	}{
		{&r.o.Figure, r.report.WriteFigure},
		{&r.o.HTML, r.report.WriteHTML},
	} {
		if *f.path == "" {
			continue
		}
		if *f.path, err = filepath.Abs(*f.path); err != nil {
			return err
		}
		if err := outfile.Write(*f.path, outfile.Private, f.write); err != nil {
			return err
		}
	}
	return nil
}

// Print prints the table, says where the files are, and ends with what was found, in a sentence each:
// which method was responsive first, and what that was worth to the guest.
func (r *Result) Print(w io.Writer) error {
	if err := r.report.Table(w); err != nil {
		return err
	}
	if r.o.Figure != "" || r.o.HTML != "" || r.dir != "" {
		fmt.Fprintln(w)
	}
	for _, f := range []struct{ what, path string }{{"figure", r.o.Figure}, {"report", r.o.HTML}} {
		if f.path != "" {
			fmt.Fprintf(w, "%s: %s\n", f.what, f.path)
		}
	}
	if r.dir != "" {
		fmt.Fprintf(w, "kept: %s (try: thaw mount %s MNT)\n", r.dir, r.store)
	}
	return r.report.WriteSentences(w)
}

// MarshalJSON is the report of package report with what only the lab knows.
func (r *Result) MarshalJSON() ([]byte, error) {
	text, err := json.Marshal(r.report)
	if err != nil {
		return nil, err
	}
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	v["guest"], v["disk"] = r.guest, r.o.Disk
	if r.o.Figure != "" {
		v["figure"] = r.o.Figure
	}
	if r.o.HTML != "" {
		v["html"] = r.o.HTML
	}
	if r.o.Checkpoint == "" {
		v["checkpoint"] = r.saved.checkpoint
		v["kernel_share_before"] = r.saved.kernelShare
	}
	return json.Marshal(v)
}
