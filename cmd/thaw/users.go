package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/thawfs/thaw/fs"
)

// maxUsers is how many users of a mount a message names.
const maxUsers = 4

// usersOf says who uses a mount, as the error of an unmount tells: see by.
func usersOf(err error) string {
	var in *fs.InUseError
	if !errors.As(err, &in) {
		return ""
	}
	return by(in.Users)
}

// by says who uses a mount: " by open file of qemu (42): /mnt/a/memory, ..."; "" where none is known.
func by(users []fs.User) string {
	if len(users) == 0 {
		return ""
	}
	var words []string
	for _, u := range users[:min(len(users), maxUsers)] {
		words = append(words, u.String())
	}
	if n := len(users) - maxUsers; n > 0 {
		words = append(words, fmt.Sprintf("%d more", n))
	}
	return " by " + strings.Join(words, ", ")
}
