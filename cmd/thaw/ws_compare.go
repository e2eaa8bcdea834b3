package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/report"
)

// wsCompareJSON is what `thaw ws show --json` prints of several sets.
type wsCompareJSON struct {
	Sets    []wsNamedJSON `json:"sets"`
	Overlap report.Matrix `json:"overlap"`
}

type wsNamedJSON struct {
	Name string `json:"name"`
	report.Summary
}

// compareSets prints what several sets have in common.
func (a *app) compareSets(ctx context.Context, named [][]string) error {
	var names []string
	var sets []*wss.Set
	for _, one := range named {
		record, err := readWorkingSet(ctx, a, one)
		if err != nil {
			return err
		}
		name := one[len(one)-1]
		set, err := wss.Parse(bytes.NewReader(record))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		names, sets = append(names, name), append(sets, set)
	}
	matrix := report.NewMatrix(names, sets)
	if a.json {
		j := wsCompareJSON{Overlap: matrix}
		for i, s := range sets {
			j.Sets = append(j.Sets, wsNamedJSON{names[i], report.Summarize(s)})
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
