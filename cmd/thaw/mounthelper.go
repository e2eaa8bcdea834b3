package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// mountHelper is the name by which mount(8) calls thaw for a file system of type thaw:
// /sbin/mount.thaw is a link to it.
const mountHelper = "mount.thaw"

// mountCall is a call by mount(8).
type mountCall struct {
	store, mnt string
	lists      []string // of options, as after each -o
	fake       bool     // everything but the mount
	sloppy     bool     // options that nobody knows are left out
	verbose    bool
	namespace  string
}

func newMountHelperCommand(run func(c mountCall) error) *cobra.Command {
	var c mountCall
	var unused struct {
		noTable bool
		kind    string
	}
	cmd := &cobra.Command{
		Use:   mountHelper + " STORE MNT",
		Short: "Mount a thaw store by mount(8) or fstab",
		Long: `mount(8) and systemd call this for file systems of the type "thaw":

  mount -t thaw /srv/store /mnt/thaw -o restore=lazy,learn

and, at boot, for a line in /etc/fstab:

  /srv/store  /mnt/thaw  thaw  nofail,x-systemd.requires-mounts-for=/srv  0  0

It is "thaw mount --daemon" with other words: it returns when the mount answers, and the
server goes on in the background, its messages in STORE/server.log.

Options are the flags of thaw-mount(1) without "--", such as "restore=lazy", "allow_other",
"learn" or "fill=50MB". "_" and "-" are the same. As mount(8) separates options by commas,
none may have a comma in its value. "ro" is --read-only.

What mount(8), systemd or the kernel take care of themselves is accepted: defaults, auto,
noauto, nofail, user, users, owner, group, _netdev, comment=, x-*, X-*, rw, async, and what
thaw mounts have anyway: nodev, nosuid, noexec, noatime, default_permissions. Any other option
is an error, but with -s. For root, "user=NAME" is --user of thaw-mount(1).

A mount cannot be changed by "-o remount": end it, and mount it with the other options.

umount(8) ends a mount that nothing uses, and its server with it. "thaw umount" says what
uses it. If the server is killed, the mount is dead: "mount MNT" again, or "thaw umount MNT".
A server under thaw@.service is started again by itself: "thaw help service".

Exit status, as mount(8) has it: 0 success, 1 wrong call, 8 interrupted, 32 not mounted.`,
		Example: `  mount -t thaw /srv/store /mnt/thaw
  mount -t thaw /srv/store /mnt/thaw -o restore=lazy,allow_other`,
		Args:          cobra.ExactArgs(2),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(_ *cobra.Command, args []string) error {
			c.store, c.mnt = args[0], args[1]
			return run(c)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&c.lists, "options", "o", nil, "options, separated by commas")
	f.BoolVarP(&c.fake, "fake", "f", false, "check the options and mount nothing")
	f.BoolVarP(&c.sloppy, "sloppy", "s", false, "leave out options that are not known")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "log what is going on")
	f.BoolVarP(&unused.noTable, "no-mtab", "n", false, "for mount(8); it means nothing here")
	f.StringVarP(&unused.kind, "types", "t", "", "for mount(8); it means nothing here")
	f.StringVarP(&c.namespace, "namespace", "N", "", "not possible: use nsenter(1)")
	return cmd
}

// runMountHelper executes a call by mount(8) and returns the exit status that mount(8) wants.
func (a *app) runMountHelper(ctx context.Context, args []string) int {
	var flags []string
	cmd := newMountHelperCommand(func(c mountCall) (err error) {
		flags, err = c.flags()
		if c.fake {
			flags = nil
		}
		return err
	})
	cmd.SetArgs(args)
	cmd.SetOut(a.stdout)
	cmd.SetErr(a.stderr)
	if err := cmd.Execute(); err != nil {
		return mountStatus(a.fail(ctx, exitcode.WithHint(exitcode.Usage,
			fmt.Errorf("%s: %w", mountHelper, err), "see: man "+mountHelper)))
	}
	if flags == nil {
		return mountStatus(exitcode.OK)
	}
	os.Args[0] = "thaw" // the server and its helpers call themselves by the name that they were called by
	return mountStatus(a.run(ctx, flags))
}

// mountStatus is an exit code as mount(8) has it.
func mountStatus(code exitcode.Code) int {
	switch code {
	case exitcode.OK:
		return 0
	case exitcode.Usage:
		return 1
	case exitcode.Interrupted:
		return 8
	}
	return 32
}

// flags are the arguments of thaw that do what mount(8) asks for.
func (c mountCall) flags() ([]string, error) {
	if c.namespace != "" {
		return nil, fmt.Errorf("-N %s: a mount in another namespace is made by nsenter(1)", c.namespace)
	}
	args := []string{"mount", "--daemon"}
	if c.verbose {
		args = append(args, "--verbose")
	}
	known := newMountCommand(&app{}).LocalNonPersistentFlags()
	var unknown []string
	for _, o := range strings.Split(strings.Join(c.lists, ","), ",") {
		if o == "" || forOthers(o) {
			continue
		}
		flag, err := mountFlag(known, o)
		switch {
		case err != nil:
			return nil, err
		case flag == "":
			unknown = append(unknown, o)
		default:
			args = append(args, flag)
		}
	}
	if len(unknown) > 0 && !c.sloppy {
		return nil, fmt.Errorf("no such option: %s", strings.Join(unknown, ", "))
	}
	return append(args, "--", c.store, c.mnt), nil
}

// forOthers says whether an option is one that is no concern of a file system's server: of mount(8),
// systemd or the kernel, or what a thaw mount is in any case.
func forOthers(option string) bool {
	if strings.HasPrefix(option, "x-") || strings.HasPrefix(option, "X-") {
		return true
	}
	name, _, valued := strings.Cut(option, "=")
	if name == "user" && valued {
		return os.Geteuid() != 0 // mount(8) adds the name of a user who mounts; of root's it is the flag
	}
	return slices.Contains([]string{
		"defaults", "auto", "noauto", "nofail", "user", "nouser", "users", "nousers", "owner", "noowner",
		"group", "nogroup", "_netdev", "comment", "uhelper", "helper",
		"async", "sync", "dirsync", "dev", "nodev", "suid", "nosuid", "exec", "noexec",
		"atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
		"nostrictatime", "lazytime", "nolazytime", "silent", "loud", "default_permissions",
	}, name)
}

// mountFlag is an option as a flag of "thaw mount"; "" if there is none of that name.
func mountFlag(known *pflag.FlagSet, option string) (string, error) {
	name, value, valued := strings.Cut(option, "=")
	switch {
	case option == "remount":
		return "", exitcode.Errorf(exitcode.Usage, "a mount cannot be changed: unmount it, and mount it anew")
	case option == "ro":
		return "--read-only", nil
	case option == "rw":
		return "--read-only=false", nil
	}
	f := known.Lookup(strings.ReplaceAll(name, "_", "-"))
	switch {
	case f == nil || f.Hidden || f.Name == "daemon" || f.Name == "help":
		return "", nil
	case valued:
		return "--" + f.Name + "=" + value, nil
	case f.NoOptDefVal == "":
		return "", fmt.Errorf("the option %s needs a value: %s=VALUE", name, name)
	}
	return "--" + f.Name, nil
}

// start runs the command that the process was called as, and returns its exit status.
func (a *app) start(ctx context.Context, args []string) int {
	if filepath.Base(args[0]) == mountHelper {
		return a.runMountHelper(ctx, args[1:])
	}
	return int(a.run(ctx, args[1:]))
}
