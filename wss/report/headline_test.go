package report

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/wss"
)

func TestHeadline(t *testing.T) {
	method := func(name string, ready int) Method {
		return NewMethod(name, wss.Counts{}, time.Duration(ready)*ms, 100*sec, nil)
	}
	slow := method("lazy", 100)
	slow.Stalls = []wss.Interval{{Start: 100 * ms, End: 100 * sec}}
	for _, c := range []struct {
		want    string
		methods []Method
	}{
		{"Nothing was compared.", nil},
		{"By TTR(100 ms, 95 %) none of the machines became responsive while it was watched.",
			[]Method{slow}},
		{"Restored by eager, the machine was responsive first, after 32 s by TTR(100 ms, 95 %): sooner " +
			"than lazy (> 99.9 s).", []Method{slow, method("eager", 32_000)}},
		{"Restored by trace, the machine was responsive after 2 s by TTR(100 ms, 95 %).",
			[]Method{method("trace", 2000)}},
		{"Restored by raw-lazy, the machine was responsive first, after 0.8 s by TTR(100 ms, 95 %): 2.5 " +
			"times sooner than access (2 s), 40 times sooner than eager (32 s) and sooner than lazy " +
			"(> 99.9 s).", []Method{method("access", 2000), method("eager", 32_000),
			method("raw-lazy", 800), slow}},
		{"By all of eager and trace the machine was responsive after 2 s by TTR(100 ms, 95 %).",
			[]Method{method("trace", 2000), method("eager", 2000)}},
		{"Restored by access or trace, the machine was responsive first, after 2 s by TTR(100 ms, 95 %): " +
			"5 % sooner than eager (2.1 s).", []Method{method("trace", 2000), method("eager", 2100),
			method("access", 2000)}},
	} {
		if got := (Report{Methods: c.methods}).Headline(); got != c.want {
			t.Errorf("%q\nwant %q", got, c.want)
		}
	}
}

// anyReport is a comparison of a few methods, some of them alike, repeated or not.
func anyReport(rng *rand.Rand) (r Report) {
	names := []string{"eager", "lazy", "access", "trace", "union", "raw-lazy", "other"}
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	warm := anyMethod(rng, "warm")
	r.Warm = &warm
	for _, name := range names[:1+rng.IntN(len(names))] {
		for range 1 + rng.IntN(3) {
			m := anyMethod(rng, name)
			if n := len(r.Methods); n > 0 && rng.IntN(3) == 0 {
				m = r.Methods[rng.IntN(n)]
				m.Name = name
			}
			r.Methods = append(r.Methods, m)
		}
	}
	return r
}

// anyMethod is a restore that waits now and then, or all the time.
func anyMethod(rng *rand.Rand, name string) Method {
	ready := time.Duration(rng.IntN(1000)) * ms
	var stalls []wss.Interval
	gap := 1 + rng.IntN(200)
	for at := ready; at < ready+time.Duration(rng.IntN(4000))*ms; {
		wait := time.Duration(rng.IntN(40_000)) * time.Microsecond
		stalls = append(stalls, wss.Interval{Start: at, End: at + wait})
		at += wait + time.Duration(rng.IntN(gap))*ms
	}
	m := NewMethod(name, wss.Counts{Window: 3 * sec}, ready, ready+3*sec, stalls)
	pace := Pace{Units: "jobs", Ran: 3 * sec}
	at := time.Duration(0)
	for n := uint64(64); n < 4000; n += 64 {
		if at += time.Duration(rng.IntN(80_000)) * time.Microsecond; at > pace.Ran {
			break
		}
		pace.Marks = append(pace.Marks, Mark{n, at})
	}
	if rng.IntN(6) > 0 {
		m.Pace = &pace
	}
	return m
}

// printed are the cells of a column as the table has them, by method, of the medians.
func printed(t *testing.T, r Report, titled string) map[string]string {
	t.Helper()
	rows := r.rows(timesTable)
	at := -1
	for i := range rows[0] {
		if rows[0][i]+" "+rows[1][i] == titled {
			at = i
		}
	}
	if at < 0 {
		t.Fatalf("no column %q in %q", titled, rows[:2])
	}
	cells := map[string]string{}
	for _, row := range rows[2:] {
		if !strings.HasPrefix(row[0], " ") && row[at] != "n/a" {
			cells[row[0]] = row[at]
		}
	}
	return cells
}

// number reads a cell; what was not seen is beyond all that was.
func number(t *testing.T, cell string) (f float64) {
	t.Helper()
	text, beyond := strings.CutPrefix(cell, "> ")
	var unit string
	if _, err := fmt.Sscanf(text, "%g %s", &f, &unit); err != nil || unit != "s" && unit != "ms" {
		t.Fatalf("%q: %v", cell, err)
	}
	if unit == "ms" {
		f /= 1000
	}
	if beyond {
		f += 1e6
	}
	return f
}

// The sentences name the methods that the table shows to be the best, and say of the others what the
// table says.
func TestSentencesFollowTheTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 0))
	gains := 0
	for range 400 {
		r := anyReport(rng)
		checkSentence(t, r.Headline(), printed(t, r, "TTR(100 ms, 95 %)"), "(", ")")
		points := r.Points()
		gain := r.Gain()
		if len(points) == 0 {
			if gain != "" {
				t.Errorf("a gain of nothing: %s", gain)
			}
			continue
		}
		cells := printed(t, r, "at "+comma(points[len(points)-1])+" jobs")
		if gain == "" {
			for name, cell := range cells {
				if !strings.HasPrefix(cell, "> ") {
					t.Errorf("no gain, but %s has %s", name, cell)
				}
			}
			continue
		}
		gains++
		checkSentence(t, gain, cells, "", "")
	}
	if gains < 100 {
		t.Errorf("only %d of the reports had a gain", gains)
	}
}

// checkSentence looks for the winners and the figures of a column in a sentence.
func checkSentence(t *testing.T, sentence string, cells map[string]string, before, after string) {
	t.Helper()
	least := 2e6
	for _, cell := range cells {
		least = min(least, number(t, cell))
	}
	if least >= 1e5 {
		if !strings.Contains(sentence, "none of the machines") {
			t.Errorf("nothing was seen in %v: %s", cells, sentence)
		}
		return
	}
	head, rest, _ := strings.Cut(sentence, " machine was ")
	if before == "" {
		head, rest, _ = strings.Cut(sentence, " page cache")
	}
	words := strings.FieldsFunc(head, func(r rune) bool { return r == ' ' || r == ',' })
	for name, cell := range cells {
		wins := number(t, cell) == least
		if wins != slices.Contains(words, name) {
			t.Errorf("%s has %s, the best is %v: %s", name, cell, least, sentence)
		}
		figure := before + cell + after
		if before == "" {
			figure = name + " " + delayWords(cell)
		}
		if !wins && !strings.Contains(rest, figure) {
			t.Errorf("%s has %s: %s", name, cell, sentence)
		}
	}
}

// delayWords is a cell of a delay in words.
func delayWords(cell string) string {
	switch {
	case strings.HasPrefix(cell, "> "):
		return "more than " + strings.TrimPrefix(strings.TrimPrefix(cell, "> "), "+") + " later"
	case strings.HasPrefix(cell, "-"):
		return cell[1:] + " sooner"
	}
	return cell[1:] + " later"
}
