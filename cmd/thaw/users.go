package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/thawfs/thaw/fs"
)

// maxUsers is how many users of a mount a message names.
const maxUsers = 4

// users says who uses a mount, as an error of an unmount tells: " by qemu-system-x86 (pid 42, open
// file /mnt/a/memory), ...". It is "" where none is known.
func users(err error) string {
	var in *fs.InUseError
	if !errors.As(err, &in) {
		return ""
	}
	return userList(in.Users)
}

// usedBy says who uses the mount on a path. It reads /proc only, never the mount.
func usedBy(mnt string) string {
	list, err := fs.Users(mnt)
	if err != nil {
		return ""
	}
	return userList(list)
}

func userList(list []fs.User) string {
	if len(list) == 0 {
		return ""
	}
	var words []string
	for _, u := range list[:min(len(list), maxUsers)] {
		words = append(words, userWords(u))
	}
	if n := len(list) - maxUsers; n > 0 {
		words = append(words, fmt.Sprintf("%d more", n))
	}
	return " by " + strings.Join(words, ", ")
}

func userWords(u fs.User) string {
	what := string(u.Kind)
	if u.Path != "" {
		what += " " + u.Path
	}
	if u.Namespace != "" {
		what += " in " + u.Namespace
	}
	if u.PID == 0 {
		return "the " + what
	}
	return fmt.Sprintf("%s (pid %d, %s)", u.Command, u.PID, what)
}
