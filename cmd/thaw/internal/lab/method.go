package lab

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/wss"
)

// method is one way to restore a machine, a row of the table.
type method struct {
	name   string
	policy fs.Policy
	set    string // the working set that it needs: a source, or setUnion; "": none
	raw    bool   // from the plain image on the same disk, without thaw
	how    string // how it restores, in words
}

// setUnion stands for all sources of a checkpoint together.
const setUnion = "union"

// methods are all that there are, in the order of the poster's table.
var methods = [...]method{
	{name: "eager", policy: fs.PolicyEager, how: "eagerly: all pages first"},
	{name: "lazy", policy: fs.PolicyLazy, how: "lazily: pages come when they are touched"},
	{name: "access", policy: fs.PolicyWorkingSet, set: string(wss.SourceAccess),
		how: "by the access bits scanned before the checkpoint"},
	{name: "trace", policy: fs.PolicyWorkingSet, set: string(wss.SourceTrace),
		how: "by the accesses traced after the checkpoint"},
	{name: "trace-full", policy: fs.PolicyWorkingSetFull, set: string(wss.SourceTrace),
		how: "by the accesses traced after the checkpoint, all of them first"},
	{name: "union", policy: fs.PolicyWorkingSet, set: setUnion, how: "by both sets together"},
	{name: "raw-eager", policy: fs.PolicyEager, raw: true, how: "eagerly from the plain image"},
	{name: "raw-lazy", policy: fs.PolicyLazy, raw: true, how: "lazily from the plain image"},
}

// findMethods looks up names, in the order of the table.
func findMethods(names []string) ([]method, error) {
	var found []method
	for _, m := range methods {
		if slices.Contains(names, m.name) {
			found = append(found, m)
		}
	}
	for _, n := range names {
		if !slices.ContainsFunc(methods[:], func(m method) bool { return m.name == n }) {
			return nil, exitcode.Errorf(exitcode.Usage, "there is no method %q; there are %s", n,
				strings.Join(MethodNames(), ", "))
		}
	}
	if len(found) == 0 {
		return nil, exitcode.Errorf(exitcode.Usage, "no method; there are %s",
			strings.Join(MethodNames(), ", "))
	}
	return found, nil
}

// MethodNames are all methods that Options.Methods can have, in the order of the table.
func MethodNames() (names []string) {
	for _, m := range methods {
		names = append(names, m.name)
	}
	return names
}

// plan orders the restores: every repetition has each method once, in a random order of its own. So
// what changes on the host over time (its disk, its clock, its load) favours no method.
func plan(ms []method, repeat int, seed uint64) []method {
	rng := rand.New(rand.NewPCG(seed, seed))
	var all []method
	for range repeat {
		round := slices.Clone(ms)
		rng.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		all = append(all, round...)
	}
	return all
}

// onlyFor is the part of a checkpoint's record that methods restore by.
func onlyFor(record *wss.Set, ms []method) *wss.Set {
	var sources []wss.Source
	for _, m := range ms {
		if m.set == setUnion {
			return record
		}
		if m.set != "" {
			sources = append(sources, wss.Source(m.set))
		}
	}
	return record.Only(sources...)
}

// setOf returns the working set that a method restores by, out of a checkpoint's record.
func (m method) setOf(record *wss.Set) (*wss.Set, error) {
	if m.set == setUnion {
		return record, nil
	}
	set := record.Only(wss.Source(m.set))
	if len(set.Runs) == 0 {
		return nil, fmt.Errorf("the checkpoint has no working set of source %q", m.set)
	}
	return set, nil
}
