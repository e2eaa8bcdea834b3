package install

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/tests/internal/race"
)

// long skips what builds packages.
func long(t *testing.T) {
	t.Helper()
	race.SkipSlow(t)
	if testing.Short() {
		t.Skip("takes minutes: left to the run without -short")
	}
	for _, tool := range []string{"dpkg-deb", "git"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool)
		}
	}
	if out, err := command(t, "../..", "git", "rev-parse", "HEAD").CombinedOutput(); err != nil {
		t.Skipf("the version of the package is that of a commit, and this is no repository: %s", out)
	}
}

func command(t *testing.T, dir, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	return cmd
}

// must runs a command and returns what it prints.
func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

// clone makes a repository of what is committed here.
func clone(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "thaw")
	top := strings.TrimSpace(must(t, command(t, "../..", "git", "rev-parse", "--show-toplevel")))
	must(t, command(t, ".", "git", "clone", "-q", top, dir))
	return dir
}

// build makes the package of a repository.
func build(t *testing.T, repository string) string {
	t.Helper()
	out := t.TempDir()
	cmd := command(t, repository, "cmd/thaw/packaging/build", out)
	if text, err := cmd.CombinedOutput(); err != nil {
		if bytes.Contains(text, []byte("dial tcp")) || bytes.Contains(text, []byte("lookup disabled")) {
			t.Skipf("the packager is not here, and cannot be got: %s", text)
		}
		t.Fatalf("%v: %v\n%s", cmd.Args, err, text)
	}
	found, _ := filepath.Glob(filepath.Join(out, "thaw_*.deb"))
	if len(found) != 1 {
		t.Fatalf("the packages are %q", found)
	}
	return found[0]
}

// TestPackageIsReproducible: the same commit makes the same bytes, in whatever place and however the
// builder likes his files.
func TestPackageIsReproducible(t *testing.T) {
	long(t)
	first := build(t, clone(t))
	other := clone(t)
	must(t, command(t, other, "chmod", "-R", "go-rwx", "."))
	must(t, command(t, other, "find", ".", "-exec", "touch", "-d", "2001-01-01", "{}", "+"))
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("LC_ALL", "C.UTF-8")
	t.Setenv("GOFLAGS", "-tags=other")
	second := build(t, other)
	if filepath.Base(first) != filepath.Base(second) {
		t.Errorf("%s and %s", first, second)
	}
	if !bytes.Equal(read(t, first), read(t, second)) {
		t.Error("two builds of one commit differ")
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestPackage(t *testing.T) {
	long(t)
	repository := clone(t)
	deb := build(t, repository)

	root := t.TempDir()
	must(t, command(t, ".", "dpkg-deb", "-x", deb, root))
	checkFiles(t, must(t, command(t, ".", "dpkg-deb", "-c", deb)))
	version := strings.Fields(must(t, command(t, root, "usr/bin/thaw", "version")))[1]
	revision := strings.TrimSpace(must(t, command(t, repository, "git", "rev-parse", "HEAD")))
	if !strings.Contains(must(t, command(t, root, "usr/bin/thaw", "version", "--json")), revision) {
		t.Errorf("the program does not know that it is %s", revision)
	}
	version = strings.Replace(strings.TrimPrefix(version, "v"), "-", "~", 1)
	version = strings.ReplaceAll(version, "-", ".")
	if got := strings.TrimSpace(must(t, command(t, ".", "dpkg-deb", "-f", deb, "Version"))); got != version {
		t.Errorf("the version of the package is %s, and not %s", got, version)
	}
	if target, err := os.Readlink(filepath.Join(root, "usr/sbin/mount.thaw")); err != nil ||
		filepath.Join("/usr/sbin", target) != "/usr/bin/thaw" {
		t.Errorf("mount.thaw is %s: %v", target, err)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		file := map[string]string{"bash": "bash-completion/completions/thaw",
			"zsh": "zsh/vendor-completions/_thaw", "fish": "fish/vendor_completions.d/thaw.fish"}[shell]
		if _, err := exec.LookPath(shell); err == nil {
			must(t, command(t, root, shell, "-n", "usr/share/"+file))
		}
	}
	lint(t, deb)
}

// checkFiles compares the modes, owners and names of what is in a package; manual pages are many.
func checkFiles(t *testing.T, listing string) {
	t.Helper()
	var got []string
	pages := 0
	for line := range strings.Lines(listing) {
		f := strings.Fields(line)
		if strings.HasSuffix(f[0], "x") && strings.HasPrefix(f[0], "d") && !strings.Contains(line, "/etc/thaw/") {
			continue // directories that other packages have, too
		}
		if strings.Contains(line, "/man1/") {
			pages++
			if strings.HasPrefix(line, "-rw-r--r-- root/root") {
				continue
			}
		}
		got = append(got, strings.Join(append(f[:2], f[5:]...), " "))
	}
	slices.Sort(got)
	want := `-rw-r--r-- root/root ./lib/systemd/system/thaw@.service
-rw-r--r-- root/root ./usr/share/bash-completion/completions/thaw
-rw-r--r-- root/root ./usr/share/doc/thaw/changelog.gz
-rw-r--r-- root/root ./usr/share/doc/thaw/copyright
-rw-r--r-- root/root ./usr/share/doc/thaw/examples/example.conf
-rw-r--r-- root/root ./usr/share/doc/thaw/licenses.gz
-rw-r--r-- root/root ./usr/share/fish/vendor_completions.d/thaw.fish
-rw-r--r-- root/root ./usr/share/man/man8/mount.thaw.8.gz
-rw-r--r-- root/root ./usr/share/zsh/vendor-completions/_thaw
-rwxr-xr-x root/root ./usr/bin/thaw
drwxr-xr-x root/root ./etc/thaw/
lrwxrwxrwx root/root ./usr/sbin/mount.thaw -> ../bin/thaw`
	if diff := cmp.Diff(strings.Split(want, "\n"), got); diff != "" {
		t.Error(diff)
	}
	if pages < 30 {
		t.Errorf("%d manual pages", pages)
	}
}

// lint asks Debian's own checker.
func lint(t *testing.T, deb string) {
	t.Helper()
	tool, err := exec.LookPath("lintian")
	if err != nil {
		t.Log("not checked by lintian, which is not here")
		return
	}
	// Go programs are static, and this is no package of Debian's archive.
	cmd := command(t, ".", tool, "--fail-on", "error,warning", "--suppress-tags",
		"statically-linked-binary,initial-upload-closes-no-bugs,no-manual-page,bogus-mail-host", deb)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}
