package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/wss"
)

func newWSShowCommand(a *app) *cobra.Command {
	var text bool
	cmd := &cobra.Command{
		Use:   "show {PATH | STORE NAME}",
		Short: "Print a working set",
		Long: `Print the working set of a checkpoint: how large it is, how its pages lie, where it came
from, when and where in guest memory its pages were touched.

PATH is a working-set file, or a directory that holds one: a checkpoint on disk, or on a
mount (MNT/NAME). In the lines "where" and "when" each character is a 64th of guest
memory, or of the recording; the higher, the more of it was touched.

--text prints the record itself, as "thaw ws import" takes it: a header, then one run a
line in first-touch order (gfn, count, microseconds, source, vCPU). --json prints the
summary with all runs.` + exitStatus(exitcode.NotStore, exitcode.NotFound, exitcode.WorkingSet),
		Example: `  thaw ws show /mnt/thaw/web-1
  thaw ws show --text /srv/store web-1 > web-1.ws`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := runWSShow(cmd.Context(), a, args, text); err != nil {
				return fmt.Errorf("ws show %s: %w", strings.Join(args, " "), err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&text, "text", false, "print the record as it is")
	return cmd
}

// wsJSON is what `thaw ws show --json` prints.
type wsJSON struct {
	wss.Summary
	Way     string      `json:"way,omitempty"`
	Created *time.Time  `json:"created,omitempty"`
	Window  float64     `json:"window_seconds"`
	List    []wsRunJSON `json:"list"`
}

type wsRunJSON struct {
	GFN    uint64     `json:"gfn"`
	Count  uint64     `json:"count"`
	Micros int64      `json:"us"`
	Source wss.Source `json:"source"`
	VCPU   *int       `json:"vcpu,omitempty"`
}

func newWSJSON(s *wss.Set) wsJSON {
	j := wsJSON{Summary: s.Summary(), Way: s.Way, Window: s.Window.Seconds(), List: []wsRunJSON{}}
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
	record, err := readWorkingSet(ctx, a, args)
	if err != nil {
		return err
	}
	set, err := wss.Parse(bytes.NewReader(record))
	switch {
	case err != nil:
		return err
	case text:
		_, err = a.stdout.Write(record)
		return err
	case a.json:
		return a.printJSON(newWSJSON(set))
	}
	a.showSet(set)
	return nil
}

// readWorkingSet reads the record that the arguments name.
func readWorkingSet(ctx context.Context, a *app, args []string) (record []byte, err error) {
	if len(args) == 2 {
		err = a.withStore(ctx, args[0], func(s storeAPI) (err error) {
			record, err = s.ReadFile(ctx, args[1], workingSetFile)
			return err
		})
		return record, err
	}
	path := args[0]
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		path = filepath.Join(path, workingSetFile)
		record, err = os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil, exitcode.WithHint(exitcode.NotFound, fmt.Errorf("no %s in it", workingSetFile),
				`on a mount, "thaw ws record MNT/NAME" makes one after a lazy restore`)
		}
		return record, err
	}
	if err == nil {
		record, err = os.ReadFile(path)
	}
	if os.IsNotExist(err) {
		err = exitcode.With(exitcode.NotFound, err)
	}
	return record, err
}

// showSet prints a set for people.
func (a *app) showSet(s *wss.Set) {
	m := s.Summary()
	line := func(name, format string, args ...any) {
		a.printf("%s%s\n", pad(name, 9), fmt.Sprintf(format, args...))
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
}

func vcpuList(list []int) string {
	if len(list) == 0 {
		return "vCPU not known"
	}
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = itoa(n)
	}
	return "vCPU " + strings.Join(words, ", ")
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
