package main

import (
	"strings"
	"testing"
)

func TestLayoutFlag(t *testing.T) {
	for in, want := range map[string]bool{"": false, "virtual": false, "physical": true} {
		if got, err := physical(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	if _, err := physical("random"); err == nil || !strings.Contains(err.Error(), "virtual") {
		t.Errorf("%v", err)
	}
}
