package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const packaging = "../../cmd/thaw/packaging"

// unit is a unit file: the values of each key, by section and key as in "Service.Type".
type unit map[string][]string

func readUnit(t *testing.T) unit {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(packaging, "thaw@.service"))
	if err != nil {
		t.Fatal(err)
	}
	u, section := unit{}, ""
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "["); ok {
			section = strings.TrimSuffix(name, "]")
		} else if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			u[section+"."+key] = append(u[section+"."+key], value)
		}
	}
	return u
}

func (u unit) one(t *testing.T, key string) string {
	t.Helper()
	if len(u[key]) != 1 {
		t.Fatalf("%s is there %d times", key, len(u[key]))
	}
	return u[key][0]
}

func (u unit) seconds(t *testing.T, key string) time.Duration {
	t.Helper()
	text := u.one(t, key)
	if _, err := strconv.Atoi(text); err == nil {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return d
}

// TestUnitShowsItsMount: each of these would give the service a mount namespace, in which its mount
// stays. The list is that of exec_needs_mount_namespace in systemd.
func TestUnitShowsItsMount(t *testing.T) {
	u := readUnit(t)
	for _, key := range strings.Fields(`RootDirectory RootImage RootHash MountImages ExtensionImages
		ExtensionDirectories ReadWritePaths ReadOnlyPaths InaccessiblePaths ExecPaths NoExecPaths
		TemporaryFileSystem BindPaths BindReadOnlyPaths MountFlags PrivateTmp PrivateDevices PrivateMounts
		PrivateUsers PrivateIPC PrivateNetwork ProtectSystem ProtectHome ProtectKernelTunables
		ProtectKernelModules ProtectKernelLogs ProtectControlGroups ProtectProc ProtectHostname ProcSubset
		DynamicUser RuntimeDirectory StateDirectory CacheDirectory LogsDirectory LogNamespace MountAPIVFS
		ProtectClock`) {
		if u["Service."+key] != nil {
			t.Errorf("%s= hides the mount from the host", key)
		}
	}
}

// TestUnitLetsGo: while systemd keeps the connection for the next start, machines wait. They must not do so
// for ever: the last start that is allowed comes before the first one is forgotten, however long they take.
func TestUnitLetsGo(t *testing.T) {
	u := readUnit(t)
	burst, err := strconv.Atoi(u.one(t, "Unit.StartLimitBurst"))
	if err != nil {
		t.Fatal(err)
	}
	each := u.seconds(t, "Service.TimeoutStartSec") + u.seconds(t, "Service.RestartSec")
	within := u.seconds(t, "Unit.StartLimitIntervalSec")
	if longest := time.Duration(burst) * each; longest > within {
		t.Errorf("%d starts take up to %v, and only those of the last %v are counted", burst, longest, within)
	}
}

// TestUnitKeepsServers: nothing ends a server but its end, or who is asked to.
func TestUnitKeepsServers(t *testing.T) {
	u := readUnit(t)
	for key, want := range map[string]string{
		"Service.Type": "notify", "Service.NotifyAccess": "main", "Service.Restart": "on-failure",
		"Service.KillMode": "mixed", "Service.OOMPolicy": "continue", "Service.OOMScoreAdjust": "-900",
		"Service.TimeoutStopSec": "infinity",
	} {
		if got := u.one(t, key); got != want {
			t.Errorf("%s=%s, and not %s", key, got, want)
		}
	}
	for key := range u {
		if strings.Contains(key, "Watchdog") || strings.HasSuffix(key, ".RuntimeMaxSec") ||
			strings.HasSuffix(key, ".MemoryMax") {
			t.Errorf("%s ends a server that is only slow, or large", key)
		}
	}
	if n, err := strconv.Atoi(u.one(t, "Service.FileDescriptorStoreMax")); err != nil || n < 2 {
		t.Errorf("no place for the connection: %v", err)
	}
	if filter := u.one(t, "Service.SystemCallFilter"); !strings.HasPrefix(filter, "~") {
		t.Errorf("SystemCallFilter=%s forbids what a newer kernel has, such as cachestat", filter)
	}
	if !slices.Contains(u["Service.DeviceAllow"], "/dev/fuse rw") {
		t.Error("the service cannot open /dev/fuse")
	}
}

// TestUnitIsRight asks systemd itself.
func TestUnitIsRight(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze (package systemd)")
	}
	text, err := os.ReadFile(filepath.Join(packaging, "thaw@.service"))
	if err != nil {
		t.Fatal(err)
	}
	// The program and its manual are not installed here.
	lines := slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool {
		return strings.HasPrefix(line, "Documentation=")
	})
	file := filepath.Join(t.TempDir(), "thaw@.service")
	changed := strings.ReplaceAll(strings.Join(lines, "\n"), "/usr/bin/thaw", "/bin/true")
	if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tool, "verify", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "thaw@") {
		t.Errorf("%v\n%s", err, out)
	}
}
