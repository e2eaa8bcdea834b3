package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/mounter"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/fs"
)

const rightsHelp = `Only the user who serves a mount can use it, not even root if that is somebody else.
--allow-user and --allow-group let others read its checkpoints, such as the user of a VMM
(libvirt-qemu, or that of a jailer): the kernel checks their access to every name and file.
--allow-other lets everybody. --uid, --gid and --mode say whose the files are shown to be and
who may read them; where one of these flags is given root can read, too. Without root a mount
for others needs "user_allow_other" in /etc/fuse.conf.

With --user root serves as another user, who must be able to read the store: a process that
is root's mounts, hands over /dev/fuse and ends; all else, from the opening of the store on,
is done by a process without any privilege. See "thaw help security".`

// rightsFlags are who may use a mount, and who serves it.
type rightsFlags struct {
	others         bool
	users, groups  listFlag
	uid, gid, mode string
	user           string
}

func (r *rightsFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&r.others, "allow-other", false, "let all users read the checkpoints")
	f.Var(&r.users, "allow-user", "let this `user` read the checkpoints; may be repeated")
	f.Var(&r.groups, "allow-group", "let the members of this `group` read the checkpoints; may be repeated")
	f.StringVar(&r.uid, "uid", "", "show the files as those of this `user`")
	f.StringVar(&r.gid, "gid", "", "show the files as those of this `group`, whose members may read them")
	f.StringVar(&r.mode, "mode", "", "permissions of the files, such as 0440")
	f.StringVar(&r.user, "user", "", "serve as this `user`, without root")
}

// rights looks up who the flags name.
func (r *rightsFlags) rights() (rights fs.Rights, err error) {
	rights.Others = r.others
	if r.others && len(r.users)+len(r.groups) > 0 {
		return rights, exitcode.Errorf(exitcode.Usage,
			"--allow-other lets all users in: leave it out, or --allow-user and --allow-group")
	}
	if rights.Users, err = lookupAll("--allow-user", r.users, lookupUser); err != nil {
		return rights, err
	}
	if rights.Groups, err = lookupAll("--allow-group", r.groups, lookupGroup); err != nil {
		return rights, err
	}
	if n := len(rights.Users) + len(rights.Groups); n > fs.MaxListed {
		return rights, exitcode.WithHint(exitcode.Usage, fmt.Errorf("%d users and groups, at most %d can be named",
			n, fs.MaxListed), "make them members of one group, and allow that")
	}
	if rights.UID, err = lookupOne("--uid", r.uid, lookupUser); err != nil {
		return rights, err
	}
	if rights.GID, err = lookupOne("--gid", r.gid, lookupGroup); err != nil {
		return rights, err
	}
	if r.mode == "" {
		return rights, nil
	}
	mode, err := strconv.ParseUint(r.mode, 8, 32)
	if err != nil || mode&^0o444 != 0 {
		return rights, exitcode.Errorf(exitcode.Usage, "--mode=%s: give who may read, such as 0440 or 0444: "+
			"the files of a mount are only read, and directories may be entered by who may read them", r.mode)
	}
	perm := uint32(mode)
	rights.Mode = &perm
	return rights, nil
}

// lookupAll finds the numbers of users or groups.
func lookupAll(flag string, names []string, find func(string) (string, error)) (ids []uint32, err error) {
	for _, name := range names {
		id, err := lookupOne(flag, name, find)
		if err != nil {
			return nil, err
		}
		ids = append(ids, *id)
	}
	return ids, nil
}

// lookupOne finds the number of a user or group by its name, or takes the number; nil for "".
func lookupOne(flag, name string, find func(string) (string, error)) (*uint32, error) {
	if name == "" {
		return nil, nil
	}
	id, err := find(name)
	if err != nil {
		id = name // a number need not have a name
	}
	n, perr := strconv.ParseUint(id, 10, 32)
	if perr != nil || uint32(n) == ^uint32(0) {
		return nil, exitcode.With(exitcode.Usage, fmt.Errorf("%s=%s: %w", flag, name, err))
	}
	number := uint32(n)
	return &number, nil
}

func lookupUser(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func lookupGroup(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}

// listFlag is a flag with names, each given by itself or several with commas between them.
type listFlag []string

func (l *listFlag) Type() string   { return "list" }
func (l *listFlag) String() string { return strings.Join(*l, ",") }

func (l *listFlag) Set(s string) error {
	for name := range strings.SplitSeq(s, ",") {
		if name == "" {
			return fmt.Errorf("an empty name in %q", s)
		}
		*l = append(*l, name)
	}
	return nil
}

// serveAs says whether the server is to run as another user than this process, and as whom.
func (r *rightsFlags) serveAs() (u process.User, other bool, err error) {
	switch {
	case r.user == "":
		return u, false, nil
	case os.Geteuid() != 0:
		return u, false, exitcode.WithHint(exitcode.Usage, fmt.Errorf("--user=%s: only root can serve as another "+
			"user", r.user), "leave it out: you serve as yourself, through fusermount3")
	}
	if u, err = process.LookupUser(r.user); err != nil {
		return u, false, exitcode.With(exitcode.Usage, fmt.Errorf("--user: %w", err))
	}
	return u, u.UID != 0, nil
}

// unprivileged makes this process that of a user, and returns the process, still root's, that can mount for
// it.
func unprivileged(a *app, mnt string, u process.User, how fs.Mounting) (m *mounter.Mounter, err error) {
	how.Server = fuse.Owner{Uid: u.UID, Gid: u.GID}
	m, err = mounter.Start(process.Self(mounter.Command), mnt, how)
	if err != nil {
		return nil, exitcode.WithHint(exitcode.MountPoint, err, `make an empty directory with "mkdir -p MNT"`)
	}
	if err := process.Become(u); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	a.note("thaw: serving as user %s, without privileges", u.Name)
	return m, nil
}

// newMounterCommand is the process that mounts for a server without privileges, and hidden.
func newMounterCommand() *cobra.Command {
	return &cobra.Command{
		Use:    mounter.Command + " MNT UID GID SHARED READONLY SOURCE",
		Hidden: true,
		Args:   cobra.ExactArgs(mounter.Args),
		RunE:   func(_ *cobra.Command, args []string) error { return mounter.Main(args) },
	}
}
