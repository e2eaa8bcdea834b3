package main

import (
	"fmt"
	"io"
	"sync"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// output is the stdout of a command. It remembers the first error of a write, so that a command
// which printed nothing, or not all, must not end with success, whether or not its code checked the error.
type output struct {
	w io.Writer

	mu  sync.Mutex // guards what follows
	err error
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	if err != nil {
		o.err = outputError(err)
	}
	return n, o.err
}

// failed is the error of the first write that failed; nil: all was written.
func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// outputError says that what was printed is not complete.
func outputError(err error) error {
	code := exitcode.Failure
	if exitcode.IsFull(err) {
		code = exitcode.NoSpace
	}
	return exitcode.WithHint(code, fmt.Errorf("write the output: %w", err),
		"what was printed is not complete")
}
