package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/rogpeppe/go-internal/testscript"
)

// dashboardFile is the dashboard for Grafana that comes with the source.
const dashboardFile = "../../fs/grafana.json"

// metricLine is how the help page begins what it says of a metric: name, type, unit, labels.
var metricLine = regexp.MustCompile(`(?m)^  (thaw_\w+) +(\w+) +(\S+)((?: +\w+)*)\n((?:      .*\n?)+)`)

// cmdDocumented compares what a server exposes with "thaw help metrics" and with the dashboard: each metric
// is described as it is, none is described that is not there, and the dashboard asks for no other.
func cmdDocumented(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 1, "documented EXPOSITION")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(ts.ReadFile(args[0])))
	ts.Check(err)
	page, err := helpTexts.ReadFile("help/metrics.md")
	ts.Check(err)
	written := metricsOf(string(page))
	for name, f := range families {
		if !strings.HasPrefix(name, "thaw_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		kind := strings.ToLower(f.GetType().String())
		if want := described(name, kind, unitOf(name), labels, f.GetHelp()); written[name] != want {
			ts.Logf("help/metrics.md has of %s\n%swant\n%s", name, written[name], want)
			err = fmt.Errorf("what the help says of metrics is not what there is")
		}
		delete(written, name)
	}
	for name := range written {
		ts.Logf("help/metrics.md has %s, and the server does not", name)
		err = fmt.Errorf("what the help says of metrics is not what there is")
	}
	ts.Check(err)
	text, err := os.ReadFile(dashboardFile)
	ts.Check(err)
	for _, name := range queried(ts, text) {
		if families[name] == nil {
			ts.Fatalf("%s asks for %s, which the server does not have", dashboardFile, name)
		}
	}
}

// metricsOf is what a page says of each metric.
func metricsOf(page string) map[string]string {
	all := map[string]string{}
	for _, m := range metricLine.FindAllStringSubmatch(page, -1) {
		meaning := strings.Join(strings.Fields(m[5]), " ")
		all[m[1]] = described(m[1], m[2], m[3], strings.Fields(m[4]), meaning)
	}
	return all
}

// described is what the page has to say of a metric.
func described(name, kind, unit string, labels []string, meaning string) string {
	return fmt.Sprintf("  %s %s\n      %s\n", name, strings.Join(append([]string{kind, unit}, labels...), " "),
		meaning)
}

// unitOf is the unit of a metric by its name, as Prometheus wants names: base units only; what has none is a
// number of things.
func unitOf(name string) string {
	name = strings.TrimSuffix(name, "_total")
	for _, unit := range []string{"bytes_per_second", "seconds", "bytes", "ratio", "pages"} {
		if strings.HasSuffix(name, "_"+unit) {
			return strings.ReplaceAll(unit, "_per_", "/")
		}
	}
	return "number"
}

// queried lists the metrics that the queries of a dashboard name.
func queried(ts *testscript.TestScript, dashboard []byte) (names []string) {
	var v any
	ts.Check(json.Unmarshal(dashboard, &v))
	metric := regexp.MustCompile(`\b(?:thaw|process|go)_\w+`)
	part := regexp.MustCompile(`_(?:bucket|sum|count)$`)
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for key, e := range v {
				if text, ok := e.(string); ok && (key == "expr" || key == "query" || key == "definition") {
					for _, name := range metric.FindAllString(text, -1) {
						if whole := part.ReplaceAllString(name, ""); strings.HasSuffix(whole, "_seconds") {
							name = whole
						}
						names = append(names, name)
					}
				} else {
					walk(e)
				}
			}
		}
	}
	walk(v)
	if len(names) == 0 {
		ts.Fatalf("%s asks for nothing", dashboardFile)
	}
	return names
}

// The dashboard is small, and each of its panels has a title and says what it shows.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash(dashboardFile))
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 100_000 {
		t.Errorf("%d bytes", len(text))
	}
	var d struct {
		UID, Title string
		Panels     []struct {
			ID                       int
			Type, Title, Description string
			Targets                  []struct{ Expr, LegendFormat string }
			GridPos                  struct{ H, W, X, Y int }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil || d.UID == "" || d.Title == "" {
		t.Fatalf("%v, %q", err, d.Title)
	}
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if p.Title == "" || ids[p.ID] || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q: no title, no place, or twice", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
			t.Errorf("panel %q does not say what it shows", p.Title)
		}
	}
}
