package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
)

// size prints bytes for people: IEC units, "1.5 GiB".
func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// count prints a number for people: "262,144".
func count[T ~int | ~int64 | ~uint64](n T) string { return humanize.Comma(int64(n)) }

// parseSize reads a size: 4096, 64KiB, 1.5GiB, 10MB. A bare K, M, G or T counts in 1024s, as
// memory is sized everywhere else.
func parseSize(s string) (int64, error) {
	t := strings.TrimSpace(s)
	if t != "" && strings.ContainsRune("kKmMgGtT", rune(t[len(t)-1])) {
		t += "iB"
	}
	n, err := humanize.ParseBytes(t)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size (try 512MiB or 1.5GiB)", s)
	}
	return int64(n), nil
}

// sizeFlag is a flag that takes a size.
type sizeFlag int64

var _ pflag.Value = (*sizeFlag)(nil)

func (f *sizeFlag) String() string {
	if *f == 0 {
		return "0"
	}
	text := strings.ReplaceAll(strings.Replace(size(int64(*f)), ".0 ", "", 1), " ", "")
	if n, err := parseSize(text); err != nil || n != int64(*f) {
		return itoa(int(*f)) // a number that units would round
	}
	return text
}
func (f *sizeFlag) Type() string { return "size" }
func (f *sizeFlag) Set(s string) error {
	n, err := parseSize(s)
	if err == nil {
		*f = sizeFlag(n)
	}
	return err
}

// seconds prints a duration as seconds with three digits that matter.
func seconds(d time.Duration) string { return fmt.Sprintf("%.3g s", d.Seconds()) }
