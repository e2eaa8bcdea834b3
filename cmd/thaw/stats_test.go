package main

import "testing"

func TestSpark(t *testing.T) {
	if got := spark([]float64{0, 0.01, 0.5, 1}); got != " ▁▅█" {
		t.Errorf("%q", got)
	}
	if got := spark([]float64{0, 0}); got != "  " {
		t.Errorf("%q", got)
	}
}
