package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestScriptsOfThePackage runs what dpkg runs (deb-postinst(5) and the like), on a host whose systemctl and
// thaw only note that they were called. An upgrade touches no mount.
func TestScriptsOfThePackage(t *testing.T) {
	for _, c := range []struct {
		script, args string
		busy         bool // a mount is in use
		want         string
		fails        bool
	}{
		{"postinst", "configure", false, "systemctl --system daemon-reload", false},
		{"postinst", "configure 1.0", false, "systemctl --system daemon-reload", false},
		{"postinst", "abort-upgrade 1.0", false, "", false},
		{"prerm", "upgrade 1.1", false, "", false},
		{"prerm", "failed-upgrade 1.1", false, "", false},
		{"prerm", "remove", false, "thaw umount /mnt/a b\nthaw umount /mnt/c", false},
		{"prerm", "remove", true, "thaw umount /mnt/a b", true},
		{"postrm", "upgrade 1.1", false, "systemctl --system daemon-reload", false},
		{"postrm", "remove", false, "systemctl --system daemon-reload", false},
		{"postrm", "purge", false, "systemctl --system daemon-reload", false},
	} {
		calls, err := runScript(t, c.script, strings.Fields(c.args), c.busy)
		if calls != c.want || (err != nil) != c.fails {
			t.Errorf("%s %s (mount in use: %v): %v; it called\n%s\nand not\n%s", c.script, c.args, c.busy, err,
				calls, c.want)
		}
	}
}

// runScript runs a script with its paths changed to those of an empty host, and returns what it called.
func runScript(t *testing.T, script string, args []string, busy bool) (string, error) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(packaging, script))
	if err != nil {
		t.Fatal(err)
	}
	host := t.TempDir()
	for _, dir := range []string{"run/systemd/system", "etc/thaw", "bin", "proc/self"} {
		if err := os.MkdirAll(filepath.Join(host, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	status := "0"
	if busy {
		status = "1"
	}
	files := map[string]string{
		"bin/systemctl": "#!/bin/sh\necho \"systemctl $*\" >>" + host + "/calls\n",
		"bin/thaw":      "#!/bin/sh\necho \"thaw $*\" >>" + host + "/calls\nexit " + status + "\n",
		"proc/self/mounts": "/dev/a / ext4 rw 0 0\n/st /mnt/a\\040b fuse.thaw rw 0 0\n" +
			"other /mnt/o fuse.other rw 0 0\n/s2 /mnt/c fuse.thaw rw 0 0\n",
		"script": strings.NewReplacer("/run/systemd", host+"/run/systemd", "/etc/thaw", host+"/etc/thaw",
			"/proc/self", host+"/proc/self").Replace(string(text)),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(host, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{filepath.Join(host, "script")}, args...)...)
	cmd.Env = []string{"PATH=" + host + "/bin:/usr/bin:/bin"}
	err = cmd.Run()
	calls, _ := os.ReadFile(filepath.Join(host, "calls"))
	return strings.TrimSpace(string(calls)), err
}
