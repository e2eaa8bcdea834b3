package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/wss/scan"
)

// A scan waits for a guest that sleeps, as long as it may, and for nothing else.
func TestPatientScan(t *testing.T) {
	asleep, broken := &scan.NoBitsError{Halted: true}, errors.New("broken")
	for name, c := range map[string]struct {
		answers []error // of the tries; the last one of all that follow
		tries   int
		notes   int
		want    error
	}{
		"awake":       {[]error{nil}, 1, 0, nil},
		"wakes up":    {[]error{asleep, asleep, nil}, 3, 2, nil},
		"breaks":      {[]error{asleep, broken}, 2, 1, broken},
		"not asleep":  {[]error{&scan.NoBitsError{}}, 1, 0, scan.ErrNoBits},
		"perhaps":     {[]error{&scan.NoBitsError{Unseen: true}, nil}, 2, 2, nil},
		"never wakes": {[]error{asleep}, 5, 1, scan.ErrNoBits},
	} {
		now := time.Unix(0, 0)
		tries, notes := 0, 0
		p := patientScan{
			wait: 4 * napTime, now: func() time.Time { return now },
			note: func(string, ...any) { notes++ },
			sleep: func(_ context.Context, d time.Duration) error {
				now = now.Add(d)
				return nil
			},
		}
		err := p.do(t.Context(), func() error {
			tries++
			return c.answers[min(tries, len(c.answers))-1]
		})
		if !errors.Is(err, c.want) || tries != c.tries || notes != c.notes {
			t.Errorf("%s: %v after %d tries, with %d notes", name, err, tries, notes)
		}
		code, hint, _ := exitcode.Of(err)
		if name == "never wakes" && (code != exitcode.Unsupported || hint == "") {
			t.Errorf("%s: %v, %q", name, code, hint)
		}
	}
}
