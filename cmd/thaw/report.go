package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/bugreport"
	"github.com/thawfs/thaw/cmd/thaw/internal/doctor"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/outfile"
	"github.com/thawfs/thaw/fs"
)

// reportOptions are the flags of "thaw doctor" that are for a report.
type reportOptions struct {
	file      string
	withNames bool
}

// aboutReport is how the README of a report begins.
const aboutReport = `A report by "thaw doctor --report", for somebody who looks into a fault of thaw.

It has nothing of the memory of machines: no pages, no states of machines, none of the other
files of checkpoints. %s

`

const (
	withoutNames = `Names of checkpoints and paths of stores and mounts are replaced by
words such as checkpoint-1. The logs may still tell names that thaw does not know to be some.`
	withNames = `Names of checkpoints, and paths, are in it as they are (--with-names).`
)

// reportLog is how much of the end of a log a report has, in bytes.
const reportLog = 256 << 10

// writeReport makes the archive. places are the stores and mounts that it is about; all mounts if there
// are none.
func writeReport(ctx context.Context, a *app, found doctor.Report, places []string, o reportOptions) error {
	if _, err := os.Lstat(o.file); err == nil {
		return exitcode.WithHint(exitcode.Exists, fmt.Errorf("%s exists", o.file),
			"give a file that does not; nothing was written")
	}
	names, about := bugreport.HideNames(), withoutNames
	if o.withNames {
		names, about = &bugreport.Names{}, withNames
	}
	r := reporter{bugreport.New(names), a}
	r.AddJSON("version.json", "which thaw it is", buildVersion(), nil)
	r.AddJSON("doctor.json", "what this host can do", found, nil)
	if len(places) == 0 {
		var err error
		if places, err = fs.Mounts(); err != nil {
			r.Lacks("mounts", err)
		}
	}
	stores := map[string]bool{}
	for i, place := range places {
		r.place(ctx, fmt.Sprintf("place-%d/", i+1), place, stores)
	}
	r.AddText("host.txt", "kernel, distribution, processor, memory, limits", bugreport.Host(), nil)
	mounts, err := reportMounts()
	r.AddText("mounts.txt", "the mounts of thaw, from /proc/self/mountinfo", mounts, err)
	if err := ctx.Err(); err != nil {
		return err
	}
	err = outfile.Write(o.file, outfile.Private, func(w io.Writer) error {
		return r.Write(w, fmt.Sprintf(aboutReport, about))
	})
	if err != nil {
		return err
	}
	a.note("%s has the report; README.txt in it says what is in it. Look at it before you give it away: "+
		"tar -xzf %s", o.file, o.file)
	return nil
}

// reporter puts a report together.
type reporter struct {
	*bugreport.Report
	a *app
}

// place reports of a store or a mount, and of the store of a mount.
func (r *reporter) place(ctx context.Context, dir, path string, stores map[string]bool) {
	store := path
	if m, err := access.Resolve(ctx, path); err == nil {
		r.Names.Hide("mount", m.Root)
		store = r.mount(ctx, dir, m)
	} else if _, on, lerr := fs.Locate(path); lerr == nil && on {
		r.Names.Hide("mount", path)
		r.Lacks(dir+"server", err) // it is dead, or hangs
		return
	} else if s, ok, serr := access.ServerStatus(ctx, path); serr == nil && ok {
		r.Names.Hide("mount", s.Mount)
		if m, err := access.Resolve(ctx, s.Mount); err == nil {
			r.mount(ctx, dir, m)
		}
	}
	if store == "" || stores[store] {
		return
	}
	stores[store] = true
	r.Names.Hide("store", store)
	summary, err := r.store(ctx, store)
	r.AddJSON(dir+"store.json", "the sizes of the store and of its checkpoints", summary, err)
}

// mount reports of a server, and returns its store.
func (r *reporter) mount(ctx context.Context, dir string, m access.Mount) string {
	server, err := m.Server(ctx)
	if err != nil {
		r.Lacks(dir+"server", err)
		return ""
	}
	st, err := server.Status(ctx)
	if err != nil {
		r.Lacks(dir+"server", err)
		return ""
	}
	store := st.Store
	r.Names.Hide("store", store)
	names, _ := namesIn(ctx, store)
	for _, name := range names {
		r.Names.Hide("checkpoint", name)
	}
	st.Store, st.Mount = r.Names.Hide("store", st.Store), r.Names.Hide("mount", st.Mount)
	for i := range st.Users {
		st.Users[i].Path = r.Names.Hide("file", st.Users[i].Path)
	}
	r.AddJSON(dir+"status.json", "what the server says of itself", st, nil)
	stats, err := look(ctx, m, true)
	r.AddJSON(dir+"stats.json", "counters of checkpoints and clones", r.stats(stats), err)
	metrics, err := access.Bounded(ctx, m.Root, func() ([]byte, error) {
		return os.ReadFile(filepath.Join(m.Root, access.Dot, "metrics"))
	})
	r.AddText(dir+"metrics.txt", "counters of the server, as Prometheus reads them", string(metrics), err)
	process, err := bugreport.Process(st.PID)
	r.AddText(dir+"process.txt", "limits, memory, descriptors and threads of the server", process, err)
	goroutines, err := server.Goroutines(ctx)
	r.AddText(dir+"goroutines.txt", "what the server does", goroutines, err)
	log, err := bugreport.LogOf(st.PID, reportLog)
	r.AddText(dir+"log.txt", "the end of the server's log", log, err)
	return store
}

// stats are the counters of a mount, without the times of all waits, and without names.
func (r *reporter) stats(all map[string]json.RawMessage) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for _, machine := range slices.Sorted(maps.Keys(all)) {
		name, clone, _ := strings.Cut(machine, "/")
		key := r.Names.Hide("checkpoint", name)
		if clone != "" {
			key += "/" + r.Names.Hide("clone", clone)
		}
		text, err := withoutTimes(all[machine])
		if err != nil {
			r.Lacks("stats of "+key, err)
			continue
		}
		out[key] = json.RawMessage(r.Names.Text(string(text)))
	}
	return out
}

// reportMounts are the lines of thaw mounts in the table of mounts.
func reportMounts() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	var ours strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, " fuse.thaw ") {
			ours.WriteString(line)
		}
	}
	return ours.String(), err
}
