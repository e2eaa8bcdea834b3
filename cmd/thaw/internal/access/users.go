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
	var in *fs.InUseError
	if !errors.As(err, &in) {
		return ""
	}
	return UsedBy(in.Users)
}

// UsedBy says who uses a mount: " by open file of qemu (42): /mnt/a/memory, ..."; "" where none is known.
func UsedBy(users []fs.User) string {
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
