package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
)

// maxShareFlag is how much of an image a working set may have, in percent.
type maxShareFlag float64

func (m *maxShareFlag) addTo(f *pflag.FlagSet, what string) {
	*m = 100 * wss.DefaultMaxShare
	f.Float64Var((*float64)(m), "max-share", float64(*m), fmt.Sprintf(
		"%s beyond this `percent` of memory; sets of up to %s are never too large, 100 allows any",
		what, size(wss.DefaultMaxFloor)))
}

// policy is the flag as a policy; it must make sense.
func (m maxShareFlag) policy() (wss.Policy, error) {
	if !(m > 0 && m <= 100) {
		return wss.Policy{}, exitcode.Errorf(exitcode.Usage,
			"--max-share is a number of percent, above 0 and at most 100")
	}
	return wss.Policy{MaxShare: float64(m) / 100}, nil
}

// workingSetWithin is the part of a set that a policy allows to be brought before a machine runs: the best
// sources' first touches first. The warning says what was left out; "": nothing.
func workingSetWithin(set *wss.Set, p wss.Policy) (runs []index.Run, warning string) {
	ranked := *set
	ranked.Runs = byRank(set)
	front, large := p.Apply(&ranked)
	if large != nil {
		warning = large.Error() + "; the rest of it comes on demand"
	}
	return workingSetRuns(front), warning
}
