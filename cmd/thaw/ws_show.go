package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/report"
)

func newWSShowCommand(a *app) *cobra.Command {
	var text, history bool
	cmd := &cobra.Command{
		Use:   "show {PATH... | {STORE | MNT} NAME...}",
		Short: "Print a working set, or compare several",
		Long: `Print the working set of a checkpoint: how large it is, how its pages lie, where it came
from, when and where in guest memory its pages were touched.

PATH is a working-set file, or a directory that holds one: a checkpoint on disk, on a mount
(MNT/NAME), or in a store (STORE/NAME). In the lines "where" and "when" each character is
a 64th of guest memory, or of the recording; the higher, the more of it was touched.

Of several sets it prints how much they have in common: Jaccard's measure, the share of
the pages of either that both have. Of one set with several sources it says so of these.

--text prints the record itself, as "thaw ws import" takes it: a header, then one run a
line in first-touch order (gfn, count, microseconds, source, vCPU). --json prints the
summary with all runs.

--history prints what the restores of a checkpoint have taught a server that learns
("thaw mount --learn"), one a line: how many pages its set had; how many of those that
were left out at random the machine used; recall and precision by that; the pages of the
set that came late and those that were missed; and what was decided. It takes one
checkpoint.` + exitStatus(exitcode.NotStore, exitcode.NotFound, exitcode.WorkingSet),
		Example: `  thaw ws show /mnt/thaw/web-1
  thaw ws show --text /srv/store web-1 > web-1.ws
  thaw ws show /mnt/thaw/web-1 /mnt/thaw/web-2`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if history {
				return named(runWSHistory(cmd.Context(), a, args, text), "ws show --history %s", strings.Join(args, " "))
			}
			return named(runWSShow(cmd.Context(), a, args, text), "ws show %s", strings.Join(args, " "))
		},
	}
	cmd.Flags().BoolVar(&text, "text", false, "print the record as it is")
	cmd.Flags().BoolVar(&history, "history", false, "print what restores have taught about the set")
	return cmd
}

// wsJSON is what `thaw ws show --json` prints.
type wsJSON struct {
	report.Summary
	Way     string        `json:"way,omitempty"`
	Created *time.Time    `json:"created,omitempty"`
	Window  float64       `json:"window_seconds"`
	List    []wsRunJSON   `json:"list"`
	Overlap report.Matrix `json:"source_overlap"`
}

type wsRunJSON struct {
	GFN    uint64     `json:"gfn"`
	Count  uint64     `json:"count"`
	Micros int64      `json:"us"`
	Source wss.Source `json:"source"`
	VCPU   *int       `json:"vcpu,omitempty"`
}

func newWSJSON(s *wss.Set) wsJSON {
	j := wsJSON{Summary: report.Summarize(s), Way: s.Way, Window: s.Window.Seconds(), List: []wsRunJSON{},
		Overlap: report.SourceMatrix(s)}
	if !s.Created.IsZero() {
		j.Created = &s.Created
	}
	for _, r := range s.Runs {
		one := wsRunJSON{GFN: r.GFN, Count: r.Count, Micros: r.At.Microseconds(), Source: r.Source}
		if r.VCPU != wss.NoVCPU {
			one.VCPU = &r.VCPU
		}
		j.List = append(j.List, one)
	}
	return j
}

func runWSShow(ctx context.Context, a *app, args []string, text bool) error {
	if err := access.Answering(ctx, args...); err != nil {
		return err
	}
	named := wsNames(ctx, args)
	if len(named) > 1 {
		if text {
			return exitcode.Errorf(exitcode.Usage, "--text prints one set")
		}
		return a.compareSets(ctx, named)
	}
	record, err := readWorkingSet(ctx, a, named[0])
	if err != nil {
		return err
	}
	set, err := wss.Parse(bytes.NewReader(record))
	if err != nil {
		return err
	}
	switch {
	case text:
		_, err = a.stdout.Write(record)
		return err
	case a.json:
		return a.printJSON(newWSJSON(set))
	}
	a.showSet(set)
	return nil
}

// wsNames takes the arguments apart: each is a PATH, also STORE/NAME, or the first is a store or a mount and
// the others are names in it.
func wsNames(ctx context.Context, args []string) (named [][]string) {
	store := len(args) > 1 && slices.ContainsFunc(args, func(path string) bool {
		return !holdsRecord(path)
	})
	if store {
		p, err := access.Find(ctx, args[0], args[1:]...)
		store = err != nil || len(p.Names) < len(args) // else the first names a checkpoint, too
	}
	if !store {
		return slices.Collect(slices.Chunk(args, 1))
	}
	for _, name := range args[1:] {
		named = append(named, []string{args[0], name})
	}
	return named
}

func holdsRecord(path string) bool {
	info, err := os.Stat(recordIn(path))
	return err == nil && info.Mode().IsRegular()
}

// recordIn is the record that PATH names: the file, or the one in a directory.
func recordIn(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, state.SetFile)
	}
	return path
}

// readWorkingSet reads the record that a PATH or STORE NAME names.
func readWorkingSet(ctx context.Context, a *app, named []string) (record []byte, err error) {
	path := named[0]
	if _, err := os.Stat(path); len(named) == 2 || errors.Is(err, os.ErrNotExist) {
		if p, err := access.Find(ctx, path, named[1:]...); err != nil {
			return nil, err
		} else if len(p.Names) == 1 {
			return access.Read(ctx, a.stores, p.Store, func(s *index.Store) ([]byte, error) {
				return s.ReadFile(ctx, p.Names[0], state.SetFile)
			})
		}
	}
	file := recordIn(path)
	record, err = os.ReadFile(file)
	switch {
	case file != path && os.IsNotExist(err) && index.IsStore(path):
		_, err = access.Place{Store: path}.One()
	case file != path && os.IsNotExist(err):
		err = exitcode.WithHint(exitcode.NotFound, fmt.Errorf("no %s in it", state.SetFile),
			`on a mount, "thaw ws record MNT/NAME" makes one after a lazy restore`)
	case os.IsNotExist(err):
		err = exitcode.With(exitcode.NotFound, err)
	}
	return record, err
}

// readSet reads one of several sets.
func readSet(ctx context.Context, a *app, named []string) (*wss.Set, error) {
	record, err := readWorkingSet(ctx, a, named)
	if err != nil {
		return nil, err
	}
	set, err := wss.Parse(bytes.NewReader(record))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", named[len(named)-1], err)
	}
	return set, nil
}

// compareSets prints what several sets have in common.
func (a *app) compareSets(ctx context.Context, named [][]string) error {
	var names []string
	var sets []*wss.Set
	for _, one := range named {
		set, err := readSet(ctx, a, one)
		if err != nil {
			return err
		}
		names, sets = append(names, one[len(one)-1]), append(sets, set)
	}
	matrix := report.NewMatrix(names, sets)
	if a.json {
		type namedJSON struct {
			Name string `json:"name"`
			report.Summary
		}
		j := struct {
			Sets    []namedJSON   `json:"sets"`
			Overlap report.Matrix `json:"overlap"`
		}{Overlap: matrix}
		for i, s := range sets {
			j.Sets = append(j.Sets, namedJSON{names[i], report.Summarize(s)})
		}
		return a.printJSON(j)
	}
	rows := make([][]string, len(sets))
	for i, s := range sets {
		m := report.Summarize(s)
		var sources []string
		for _, source := range m.Sources {
			sources = append(sources, string(source.Source))
		}
		rows[i] = []string{names[i], count(m.Pages), size(m.Bytes),
			fmt.Sprintf("%.1f %%", m.Share*100), count(m.Runs), strings.Join(sources, ", ")}
	}
	a.table([]string{"set", ">pages", ">size", ">of memory", ">runs", "sources"}, rows)
	a.printf("\nin common, of the pages of either\n")
	return matrix.WriteText(a.stdout)
}

// showSet prints a set for people.
func (a *app) showSet(s *wss.Set) {
	m := report.Summarize(s)
	line := func(name, format string, args ...any) {
		a.printf("%-9s"+format+"\n", append([]any{name}, args...)...)
	}
	line("pages", "%s (%s), %.1f %% of %s (%s)", count(m.Pages), size(m.Bytes), m.Share*100,
		count(m.ImagePages), size(int64(m.ImagePages)*wss.PageSize))
	line("runs", "%s; pages in a run: p50 %s, p90 %s, at most %s", count(m.Runs), count(m.RunP50),
		count(m.RunP90), count(m.RunMax))
	for _, source := range m.Sources {
		line("source", "%s: %s pages in %s runs, %s", source.Source, count(source.Pages),
			count(source.Runs), vcpuList(source.VCPUs))
	}
	if s.Way != "" {
		line("way", "%s", s.Way)
	}
	if !s.Created.IsZero() {
		line("created", "%s", s.Created.UTC().Format(time.RFC3339))
	}
	if s.Window > 0 {
		line("window", "%v", s.Window)
	}
	if m.Runs == 0 {
		return
	}
	line("touched", "half of the pages within %.3g s, 90 %% within %.3g s, all within %.3g s",
		m.T50, m.T90, m.T100)
	line("where", "|%s| guest memory, 0 to %s", spark(m.Where),
		size(int64(m.ImagePages)*wss.PageSize))
	window := max(s.Window.Seconds(), m.T100)
	line("when", "|%s| 0 to %.3g s", spark(m.When), window)
	overlap := report.SourceMatrix(s)
	for i, a := range overlap.Names {
		for j, b := range overlap.Names[:i] {
			o := overlap.Overlaps[j][i]
			line("overlap", "%s and %s: %s pages, %.1f %% of those of either", b, a, count(o.Both),
				o.Jaccard()*100)
		}
	}
}

func vcpuList(list []int) string {
	if len(list) == 0 {
		return "vCPU not known"
	}
	return "vCPU " + strings.ReplaceAll(strings.Trim(fmt.Sprint(list), "[]"), " ", ", ")
}

// spark draws numbers as bars, the greatest at full height; what is not 0 is seen.
func spark(values []float64) string {
	bars := []rune("▁▂▃▄▅▆▇█")
	top := 0.0
	for _, v := range values {
		top = max(top, v)
	}
	var b strings.Builder
	for _, v := range values {
		if v <= 0 || top <= 0 {
			b.WriteByte(' ')
			continue
		}
		b.WriteRune(bars[min(int(v/top*float64(len(bars))), len(bars)-1)])
	}
	return b.String()
}
