package index

import (
	"errors"

	"golang.org/x/sys/unix"
)

// isSpace says whether err is about a full disk or an exhausted quota.
func isSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
