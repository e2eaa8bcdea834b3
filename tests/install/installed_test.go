package install

import (
	"context"
	_ "embed"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed host.sh
var hostScript []byte

// bootLimit bounds one life of the host, on a machine that has other things to do as well.
const bootLimit = 15 * time.Minute

// hostUnits are what the host boots to: the script, with what it needs, and no service of this host.
var hostUnits = map[string]string{
	"etc/systemd/system/thaw-test.target": `[Unit]
Requires=basic.target dbus.service
Wants=thaw-test.service multi-user.target
After=basic.target dbus.service multi-user.target
`,
	"etc/systemd/system/thaw-test.service": `[Unit]
After=basic.target multi-user.target
[Service]
Type=oneshot
EnvironmentFile=/deb/which
ExecStart=/deb/host.sh ${WHICH}
ExecStopPost=/bin/sh -c 'echo "$SERVICE_RESULT" >/deb/result; systemctl --no-block poweroff --force'
StandardOutput=append:/deb/log
StandardError=append:/deb/log
`,
}

// TestInstalled installs the package, uses it as its help says, and upgrades it under a machine.
func TestInstalled(t *testing.T) {
	long(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("systemd-nspawn"); err != nil {
		t.Skip("needs systemd-nspawn (package systemd-container)")
	}
	repository := clone(t)
	h := newHost(t)
	h.put(t, "deb/1/", build(t, repository))
	must(t, command(t, repository, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q",
		"--allow-empty", "-m", "Later"))
	h.put(t, "deb/2/", build(t, repository))
	h.boot(t, "first")
	h.boot(t, "again")
}

// host is this host, with what is written in an overlay.
type host struct{ root string }

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	mount := func(source, at, kind, data string) {
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(source, at, kind, 0, data); err != nil {
			t.Skipf("this host cannot mount %s: %v", kind, err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	h := &host{filepath.Join(dir, "root")}
	mount("tmpfs", filepath.Join(dir, "tmp"), "tmpfs", "size=2g")
	for _, d := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, "tmp", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount("overlay", h.root, "overlay", "lowerdir=/,upperdir="+dir+"/tmp/upper,workdir="+dir+"/tmp/work")
	for name, text := range hostUnits {
		h.write(t, name, []byte(text), 0o644)
	}
	h.write(t, "deb/host.sh", hostScript, 0o755)
	h.write(t, "etc/fstab", nil, 0o644)
	// Services of this host are not what is tested.
	wants := filepath.Join(h.root, "etc/systemd/system/multi-user.target.wants")
	if err := os.RemoveAll(wants); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) write(t *testing.T, name string, text []byte, mode os.FileMode) {
	t.Helper()
	name = filepath.Join(h.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text, mode); err != nil {
		t.Fatal(err)
	}
}

func (h *host) put(t *testing.T, dir, file string) {
	t.Helper()
	h.write(t, dir+filepath.Base(file), read(t, file), 0o644)
}

// boot boots the host until its script has ended.
func (h *host) boot(t *testing.T, which string) {
	t.Helper()
	h.write(t, "deb/which", []byte("WHICH="+which+"\n"), 0o644)
	h.write(t, "deb/log", nil, 0o644)
	h.write(t, "deb/result", nil, 0o644)
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	args := []string{"--quiet", "--boot", "--directory=" + h.root, "--register=no", "--keep-unit",
		"--machine=thaw-test", "--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--console=read-only", "--bind=/dev/fuse"}
	if _, err := os.Stat("/dev/kvm"); err == nil {
		args = append(args, "--bind=/dev/kvm")
	}
	cmd := exec.CommandContext(ctx, "systemd-nspawn", append(args, "--", "systemd.unit=thaw-test.target")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.CombinedOutput()
	said := read(t, filepath.Join(h.root, "deb/log"))
	result := strings.TrimSpace(string(read(t, filepath.Join(h.root, "deb/result"))))
	switch {
	case len(said) == 0 && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		t.Skipf("this host boots no container: %v\n%s", err, out)
	case result != "success":
		t.Fatalf("%s: %s\n%s\n%s", which, result, said, out)
	}
	t.Logf("%s", said)
}
