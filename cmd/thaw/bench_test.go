package main

import (
	"testing"
	"time"
)

func TestSecondsFlag(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"10": 10 * time.Second, "0.25": 250 * time.Millisecond, "90s": 90 * time.Second,
	} {
		var f secondsFlag
		if err := f.Set(in); err != nil || time.Duration(f) != want {
			t.Errorf("%s: %v %v", in, time.Duration(f), err)
		}
	}
	for _, in := range []string{"", "soon", "NaN", "1e300", "10 s"} {
		if err := new(secondsFlag).Set(in); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
}

func TestMicros(t *testing.T) {
	for d, want := range map[time.Duration]string{
		410: "0.41 us", 23_500: "23.5 us", 1_204_900: "1,204 us", 0: "0.00 us",
	} {
		if got := micros(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}

func TestSpark(t *testing.T) {
	if got := spark([]float64{0, 0.01, 0.5, 1}); got != " ▁▅█" {
		t.Errorf("%q", got)
	}
	if got := spark([]float64{0, 0}); got != "  " {
		t.Errorf("%q", got)
	}
}
