package main

import (
	"errors"
	"io"
	"testing"
)

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestOutputRemembersItsError(t *testing.T) {
	o := &output{w: brokenWriter{}}
	_, _ = io.WriteString(o, "x") // as who prints a table does not look
	if o.failed() == nil {
		t.Error("the failure is forgotten")
	}
	o = &output{w: io.Discard}
	if _, err := io.WriteString(o, "x"); err != nil || o.failed() != nil {
		t.Errorf("%v, %v", err, o.failed())
	}
}
