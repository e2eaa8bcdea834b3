package access

import (
	"errors"
	"fmt"
	"strings"

	"github.com/thawfs/thaw/fs"
)

// maxUsers is how many users of a mount a message names.
const maxUsers = 4

// UsersOf says who uses a mount, as the error of an unmount tells: see UsedBy.
func UsersOf(err error) string {
	if in, ok := errors.AsType[*fs.InUseError](err); ok {
		return UsedBy(in.Users)
	}
	return ""
}

// UsedBy says who uses a mount: " by open file of qemu (42): /mnt/a/memory, ..."; "" where none is
// known.
func UsedBy(users []fs.User) string {
	var words []string
	for _, u := range users[:min(len(users), maxUsers)] {
		words = append(words, u.String())
	}
	switch n := len(users) - maxUsers; {
	case len(users) == 0:
		return ""
	case n > 0:
		words = append(words, fmt.Sprintf("%d more", n))
	}
	return " by " + strings.Join(words, ", ")
}
