package main

import (
	"errors"
	"syscall"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// classify gives an error its exit code and says what to do about it.
func classify(err error) (exitcode.Code, string) {
	if code, hint, ok := exitcode.Of(err); ok {
		return code, hint
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return exitcode.NoSpace, "free some space and run the command again; nothing was lost"
	}
	return exitcode.Failure, ""
}
