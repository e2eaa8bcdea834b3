package main

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

func shimRelease(s *fs.Server, name string) error {
	if s.InUse(name) > 0 {
		return index.ErrInUse
	}
	s.CloseIdle()
	return nil
}

func shimDetach(mnt string) error { return unix.Unmount(mnt, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) }

var _ = context.Background
var _ = errors.New
