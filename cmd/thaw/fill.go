package main

import (
	"errors"
	"strconv"

	"github.com/spf13/pflag"
)

// defaultFill is the rate of --fill without one, in bytes a second: an image of a GiB in half a minute, and
// a small part of what any disk reads.
const defaultFill = 32 << 20

// fillByDefault is the value of --fill where no rate is given, and fillOff where the flag is not.
const (
	fillByDefault = "default"
	fillOff       = "0"
)

// fillFlag is the rate at which the rest of memory is brought. A rate that was given also goes for
// images that are too large for the default.
type fillFlag struct {
	rate  int64 // bytes a second; 0: not at all
	large bool
}

var _ pflag.Value = (*fillFlag)(nil)

func (f *fillFlag) Type() string { return "rate" }

func (f *fillFlag) String() string {
	switch {
	case f.rate == 0:
		return fillOff
	case !f.large:
		return fillByDefault
	}
	return strconv.FormatInt(f.rate, 10)
}

func (f *fillFlag) Set(s string) error {
	if s == fillByDefault {
		*f = fillFlag{rate: defaultFill}
		return nil
	}
	rate, err := parseSize(s)
	if err == nil && rate < 0 {
		err = errors.New("a rate is not negative")
	}
	if err == nil {
		*f = fillFlag{rate: rate, large: rate > 0}
	}
	return err
}

// filled says that a machine needs its store no more, as long as nothing is evicted.
func (a *app) filled(name, clone string, bytes uint64) {
	if clone != "" {
		name += ", clone " + clone
	}
	a.note("thaw: all of %s is in the page cache, %s of it were filled in", name, size(int64(bytes)))
}
