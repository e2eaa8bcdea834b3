package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func checkFuseDevice(context.Context) Check {
	c := Check{Name: "fuse device", Needed: true, Without: "nothing can be mounted; import, export, " +
		"check and the other commands on a store work"}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return c.is(Missing, "%v (modprobe fuse; a container must be given the device)", err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Rdev != unix.Mkdev(10, 229) {
		return c.is(Missing, "/dev/fuse is not the device of FUSE (character device 10, 229)")
	}
	return c.is(OK, "/dev/fuse opens")
}

func checkFusermount(context.Context) Check {
	c := Check{Name: "fusermount3", Without: "only root can mount"}
	path, err := exec.LookPath("fusermount3")
	if err != nil {
		var old error
		if path, old = exec.LookPath("fusermount"); old != nil {
			return c.is(Missing, "%v (package fuse3)", err)
		}
	}
	conf, _ := os.ReadFile("/etc/fuse.conf")
	others := regexp.MustCompile(`(?m)^\s*user_allow_other\s*$`).Match(conf)
	c.Facts = map[string]any{"path": path, "user_allow_other": others}
	if !others {
		return c.is(OK, "%s; without user_allow_other in /etc/fuse.conf, a user's mount is the user's only",
			path)
	}
	return c.is(OK, "%s; user_allow_other is set", path)
}

func checkMount(context.Context) Check {
	c := Check{Name: "mount", Needed: true, Without: "nothing can be mounted; import, export, check " +
		"and the other commands on a store work"}
	m, err := tryMount()
	if err != nil {
		return c.is(Missing, "%v", err)
	}
	defer m.close()
	return c.is(OK, "an empty FUSE file system was mounted")
}

func checkFuseProtocol(context.Context) Check {
	c := Check{Name: "fuse protocol"}
	m, err := tryMount()
	if err != nil {
		return c.is(Unknown, "nothing could be mounted to ask")
	}
	defer m.close()
	init := m.KernelSettings()
	has := func(bit uint64) bool { return init.Flags64()&bit != 0 }
	c.Facts = map[string]any{
		"major": init.Major, "minor": init.Minor, "max_readahead": init.MaxReadAhead,
		"flags":               fmt.Sprintf("%#x", init.Flags64()),
		"explicit_inval_data": has(fuse.CAP_EXPLICIT_INVAL_DATA),
		"passthrough":         has(fuse.CAP_PASSTHROUGH), "has_resend": has(fuse.CAP_HAS_RESEND),
		"over_io_uring": has(fuse.CAP_OVER_IO_URING),
	}
	found := fmt.Sprintf("version %d.%d", init.Major, init.Minor)
	var not []string
	if !has(fuse.CAP_EXPLICIT_INVAL_DATA) {
		not = append(not, "explicit invalidation (the page cache may be dropped when times change)")
	}
	if !has(fuse.CAP_HAS_RESEND) {
		not = append(not, "resend (requests in flight die with their server; Linux 6.9 has it)")
	}
	if len(not) > 0 {
		c.Without = "guests run all the same, as long as their server lives"
		return c.is(Limited, "%s, without %s", found, strings.Join(not, ", "))
	}
	return c.is(OK, "%s with explicit invalidation and resend", found)
}

func checkFuseControl(context.Context) Check {
	c := Check{Name: "fuse control", Without: "a mount whose server hangs cannot be freed by " +
		"thaw umount --abort"}
	const dir = "/sys/fs/fuse/connections"
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return c.is(Missing, "%s: %v", dir, err)
	}
	const fusectlMagic = 0x65735543 // linux/magic.h
	if int64(st.Type) != fusectlMagic {
		return c.is(Missing, "fusectl is not mounted (mount -t fusectl fusectl %s)", dir)
	}
	return c.is(OK, "fusectl is mounted on %s", dir)
}
