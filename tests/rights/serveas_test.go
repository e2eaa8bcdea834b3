package rights

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
)

// give makes a user the owner of all in a directory.
func give(t *testing.T, dir string, uid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestServerWithoutRoot: a server that root starts as a user is this user's, has no capability, and leaves no
// process of root's behind; it restores by working set, and its mount is his alone: not even root reads it.
// It ends as others do, also when root unmounts it.
func TestServerWithoutRoot(t *testing.T) {
	needRoot(t)
	if _, err := cli.Tool(t, time.Minute, "fusermount3", "--version"); err != nil {
		t.Skip("needs fusermount3 (apt-get install fuse3)")
	}
	dir := open(t)
	store, source := stored(t, dir)
	give(t, store, friend)
	mount := func(t *testing.T, flags ...string) *cli.Mounted {
		return cli.MountAs(t, nil, store, filepath.Join(dir, "mnt"), append(flags, "--user=nobody")...)
	}
	t.Run("alone", func(t *testing.T) {
		m := mount(t)
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`Uid:\s65534\s65534\s65534\s65534\n`,
			`Gid:\s65534\s65534\s65534\s65534\n`,
			`Groups:\s65534 ?\n`, `CapPrm:\s0+\n`, `CapEff:\s0+\n`, `CapAmb:\s0+\n`} {
			if !regexp.MustCompile(want).Match(status) {
				t.Errorf("no %q in\n%s", want, status)
			}
		}
		if left := processesOf(t, m.Dir); len(left) != 1 {
			t.Errorf("besides the server there are %v", left)
		}
		right(t, cred(friend, friend), m.Path("vm/memory"), source)
		if text := as(t, cred(friend, friend), `cat "$1/vm/stats.json"`, m.Dir); !strings.Contains(text,
			`"prefetched_pages": 1024`) {
			t.Errorf("the working set was not brought:\n%s", text)
		}
		for _, who := range []*syscall.Credential{cred(stranger, stranger), cred(0, 0)} {
			out := as(t, who, `head -c 1 "$1/vm/memory" || echo refused`, m.Dir)
			if out != "refused\n" {
				t.Errorf("user %d: %q", who.Uid, out)
			}
		}
		tries(t, cred(stranger, stranger), m, store, m.Pid())
		as(t, cred(friend, friend), `"$1" umount "$2"`, cli.Binary(), m.Dir)
		if err := m.WaitEnd(20 * time.Second); err != nil {
			t.Errorf("the server: %v\n%s", err, m.Log())
		}
	})
	t.Run("for a friend, unmounted by root", func(t *testing.T) {
		m := mount(t, "--allow-user=65529")
		for _, who := range []*syscall.Credential{cred(friend, friend), cred(65529, 65529), cred(0, 0)} {
			right(t, who, m.Path("vm/memory"), source)
		}
		tries(t, cred(stranger, 0), m, store, m.Pid())
		m.Unmount()
		m = mount(t) // whose control file root cannot see
		c := client.StartAs(t, cred(friend, friend), nil)
		c.Open(t, m.Path("vm/memory"), client.Map{Private: true})
		cli.Fails(t, "busy", "umount", m.Dir)
		c.Close(t)
		m.Unmount()
	})
	t.Run("asked to end", func(t *testing.T) {
		m := mount(t)
		m.Terminate()
		if err := m.WaitEnd(20 * time.Second); err != nil {
			t.Errorf("the server: %v\n%s", err, m.Log())
		}
		if _, err := os.ReadDir(m.Dir); err != nil {
			t.Errorf("the mount is left behind: %v", err)
		}
	})
	t.Run("in the background", func(t *testing.T) {
		mnt := filepath.Join(dir, "mnt")
		r := cli.OK(t, "mount", store, mnt, "--daemon", "--user=nobody", "--allow-group=65530")
		if !strings.Contains(r.Stderr, "is served on") {
			t.Error(r)
		}
		right(t, cred(friend, friend), filepath.Join(mnt, "vm/memory"), source)
		st, err := os.Stat(filepath.Join(store, "server.log"))
		if err != nil || st.Sys().(*syscall.Stat_t).Uid != friend || st.Mode().Perm() != 0o600 {
			t.Errorf("the log: %v, %v", st, err)
		}
		cli.OK(t, "umount", mnt)
	})
}

// TestServerWithoutRootFails: a store that the user may not read is an error, and leaves nothing behind; who
// is not root serves only as himself.
func TestServerWithoutRootFails(t *testing.T) {
	needRoot(t)
	dir := open(t)
	store, _ := stored(t, dir)
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{nil, {"--daemon", "--log-file=" + filepath.Join(dir, "log")}} {
		r := cli.Run(t, append([]string{"mount", store, mnt, "--user=nobody"}, flags...)...)
		if r.Code != 1 || !strings.Contains(r.Stderr, "permission denied") {
			t.Errorf("a store of root's: %v", r)
		}
	}
	if left := processesOf(t, mnt); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.ReadDir(mnt); err != nil {
		t.Errorf("a mount is left behind: %v", err)
	}
	give(t, store, friend)
	// A log that is a link, or another user's, is not written to.
	if err := os.Symlink("/etc/passwd", filepath.Join(store, "server.log")); err != nil {
		t.Fatal(err)
	}
	if r := cli.Run(t, "mount", store, mnt, "--user=nobody", "--daemon"); r.Code == 0 {
		t.Errorf("a log that is a link is followed: %v", r)
	}
	out := as(t, cred(friend, friend), `"$1" mount "$2" "$3" --user=nobody 2>&1; echo status $?`,
		cli.Binary(), store, mnt)
	if !strings.Contains(out, "only root can serve as another user") || !strings.Contains(out, "status 4") {
		t.Error(out)
	}
}

// TestOrdinaryUser: fusermount3 mounts for a user, for him alone; for others only where the host allows it,
// and else the error says what to do.
func TestOrdinaryUser(t *testing.T) {
	needRoot(t)
	if _, err := cli.Tool(t, time.Minute, "fusermount3", "--version"); err != nil {
		t.Skip("needs fusermount3 (apt-get install fuse3)")
	}
	dir := open(t)
	store, source := stored(t, dir)
	give(t, store, friend)
	me := cred(friend, friend)
	m := cli.MountAs(t, me, store, filepath.Join(dir, "mnt"))
	right(t, me, m.Path("vm/memory"), source)
	tries(t, cred(stranger, stranger), m, store, m.Pid())
	as(t, me, `set -e; "$1" ls "$2" >/dev/null; "$1" stats "$2" >/dev/null; "$1" import "$2" "$3" --name more
		cmp "$2/more/memory" "$3"; "$1" umount "$2"`, cli.Binary(), m.Dir, readable(t, source))
	if err := m.WaitEnd(20 * time.Second); err != nil {
		t.Errorf("the server: %v\n%s", err, m.Log())
	}
	conf, _ := os.ReadFile("/etc/fuse.conf")
	if regexp.MustCompile(`(?m)^user_allow_other`).Match(conf) {
		return
	}
	out := as(t, me, `"$1" mount "$2" "$3" --allow-user=65530 2>&1; echo status $?`, cli.Binary(), store, m.Dir)
	if !strings.Contains(out, "user_allow_other") || !strings.Contains(out, "status 14") {
		t.Error(out)
	}
}

// readable makes a copy of a file that all users may read.
func readable(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"-copy", data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path + "-copy"
}

// processesOf lists the command lines that name a directory, but for those of the tests.
func processesOf(t *testing.T, dir string) (lines []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, _ := os.ReadFile(f) // it may have ended
		if strings.Contains(string(text), dir) {
			lines = append(lines, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return lines
}
