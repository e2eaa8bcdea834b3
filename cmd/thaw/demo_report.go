package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/wss"
)

// demoProgress is how a machine went on with its work after its restore.
type demoProgress struct {
	Units       string  `json:"units"`        // what is counted: "transactions"
	FirstSecond uint64  `json:"first_second"` // units in the first second after the first instruction
	Total       uint64  `json:"total"`        // units in the window
	PerSecond   float64 `json:"per_second"`   // over the window
}

// report prints the table and draws the figure.
func (d *demo) report(results []demoResult) error {
	// As the poster has them; they were measured in another order.
	slices.SortFunc(results, func(a, b demoResult) int { return cmp.Compare(a.row, b.row) })
	r := wss.Report{GuestPages: uint64(d.o.memory) / wss.PageSize}
	for _, x := range results {
		r.Methods = append(r.Methods, x.method)
	}
	if err := r.Figure(d.figure); err != nil {
		return err
	}
	d.stage("done")
	if d.a.json {
		v, err := d.json(r, results)
		if err != nil {
			return err
		}
		return d.a.printJSON(v)
	}
	if err := r.Table(d.a.stdout); err != nil {
		return err
	}
	d.a.printf("\n")
	rows := make([][]string, len(results))
	for i, x := range results {
		p := x.progress
		rows[i] = []string{x.method.Name, count(p.FirstSecond), fmt.Sprintf("%.0f", p.PerSecond),
			count(p.Total)}
	}
	units := results[0].progress.Units
	d.a.table([]string{"method", ">" + units + " in the 1st second", ">a second",
		">in " + d.o.window.String()}, rows)
	d.a.printf("\nfigure: %s\n", d.figure)
	if d.o.keep != "" {
		d.a.printf("kept: %s (try: thaw mount %s MNT)\n", d.dir, d.store)
	}
	return nil
}

// json is the report of package wss, with the progress beside each method's counts and the path of
// the figure.
func (d *demo) json(r wss.Report, results []demoResult) (map[string]any, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	methods, ok := v["methods"].([]any)
	if !ok || len(methods) != len(results) {
		return nil, fmt.Errorf("report has %d methods, not %d", len(methods), len(results))
	}
	for i, m := range methods {
		m, ok := m.(map[string]any)
		if !ok || m["method"] != results[i].method.Name {
			return nil, fmt.Errorf("report has %v where %s is", m["method"], results[i].method.Name)
		}
		m["progress"] = results[i].progress
	}
	v["figure"] = d.figure
	v["guest"] = d.o.guest
	return v, nil
}
