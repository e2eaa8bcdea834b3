package main

import (
	"testing"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

func TestNotOnAMount(t *testing.T) {
	_, err := resolveMount(t.TempDir())
	if code, hint, _ := exitcode.Of(err); code != exitcode.NotFound || hint == "" {
		t.Errorf("%v (%v)", err, code)
	}
}
