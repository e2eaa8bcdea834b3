package blob

import (
	"os"

	"golang.org/x/sys/unix"
)

// owner is the user who gets the files that this process makes. Zero: the user of the process.
type owner struct {
	uid, gid int
	set      bool
}

// ownerOf returns the owner of a directory for what is made in it, where this process is root and the
// directory is not root's: otherwise a server that runs as its owner could not read what root
// imported.
func ownerOf(dir string) (owner, error) {
	if os.Geteuid() != 0 {
		return owner{}, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return owner{}, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return owner{uid: int(st.Uid), gid: int(st.Gid), set: st.Uid != 0}, nil
}

func (o owner) give(path string) error {
	if !o.set {
		return nil
	}
	return os.Lchown(path, o.uid, o.gid)
}

// GiveTo gives a file or directory that this process made to the owner of dir, where this process is
// root and dir is not root's; see OpenDir.
func GiveTo(dir, path string) error {
	o, err := ownerOf(dir)
	if err != nil {
		return err
	}
	return o.give(path)
}
