package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index/blob/disk"
	"github.com/thawfs/thaw/wss"
)

// diskFlag is the flag --disk of commands that serve memory.
type diskFlag struct{ name string }

// diskHelp explains it in manuals.
const diskHelp = `--disk simulates a storage device that this host does not have: each read takes as
long as on that device, also if the data is in the host's page cache. "hdd" is one
head, 10 ms a seek, 100 MB/s; "nfs" a round trip of 0.5 ms and a link of 110 MB/s;
"s3" 20 ms a request, 16 at once, 100 MB/s; "native" is the host's own disk. (go doc
./index/blob/disk has the model.)`

func (f *diskFlag) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.name, "disk", disk.Native, "simulate a storage device: native, hdd, nfs or s3")
}

// spec is the device that the flag names.
func (f *diskFlag) spec() (disk.Spec, error) {
	s, err := disk.ParseSpec(f.name)
	if err != nil {
		return s, exitcode.With(exitcode.Usage, err)
	}
	return s, nil
}

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
