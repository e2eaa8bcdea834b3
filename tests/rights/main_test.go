package rights

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
)

func TestMain(m *testing.M) {
	client.MainIfChild()
	os.Exit(cli.Main(m))
}

// Users of the tests: friend is let in, by his number or his groups, stranger is not. Both have names, which
// fusermount3 asks for: nobody and daemon.
const (
	friend   = 65534 // nobody, who exists everywhere
	stranger = 1
	club     = 65530 // a group
)

// small is the image of all tests.
var small = image.Spec{Pages: 2048, Seed: 5}

// needRoot skips a test that has to become other users.
func needRoot(t *testing.T) {
	t.Helper()
	cli.NeedFUSE(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root to become other users")
	}
	if _, err := cli.Tool(t, time.Minute, "setpriv", "--version"); err != nil {
		t.Skip("needs setpriv (apt-get install util-linux): ", err)
	}
}

// open makes a directory that every user may enter; skips where the way there is closed.
func open(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "thaw-rights")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for up := filepath.Dir(dir); up != "/"; up = filepath.Dir(up) {
		if st, err := os.Stat(up); err != nil || st.Mode()&0o001 == 0 {
			t.Skipf("needs a scratch directory that others may enter: %s is closed (set TMPDIR)", up)
		}
	}
	st, err := os.Stat(filepath.Dir(cli.Binary()))
	if err != nil || !strings.HasSuffix(st.Mode().String(), "x") {
		t.Skip("needs a built command that others may run")
	}
	return dir
}

// stored makes a store with one checkpoint "vm" in a directory.
func stored(t *testing.T, dir string) (store, source string) {
	t.Helper()
	store, source = filepath.Join(dir, "store"), filepath.Join(dir, "source")
	ck := filepath.Join(dir, "vm")
	if err := os.MkdirAll(ck, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := small.Write(source); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"state":       "the state",
		"working-set": fmt.Sprintf("thaw-working-set 1\npages %d\n\n0 %d 0 trace\n", small.Pages, small.Pages/2),
	} {
		if err := os.WriteFile(filepath.Join(ck, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(source, filepath.Join(ck, "memory")); err != nil {
		t.Fatal(err)
	}
	cli.OK(t, "import", store, ck)
	return store, source
}

// cred is a user with one group and some supplementary ones.
func cred(uid, gid uint32, groups ...uint32) *syscall.Credential {
	return &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}
}

// as runs a script of sh as a user, and gives what it printed.
func as(t *testing.T, who *syscall.Credential, script string, args ...string) string {
	t.Helper()
	groups := "--clear-groups"
	if len(who.Groups) > 0 {
		groups = "--groups=" + strings.Trim(strings.ReplaceAll(fmt.Sprint(who.Groups), " ", ","), "[]")
	}
	out, err := cli.Tool(t, 2*time.Minute, "setpriv", append([]string{fmt.Sprintf("--reuid=%d", who.Uid),
		fmt.Sprintf("--regid=%d", who.Gid), groups, "sh", "-c", script, "sh"}, args...)...)
	if err != nil {
		t.Errorf("user %d: %v\n%s", who.Uid, err, out)
	}
	return out
}

// right maps the memory of a checkpoint as a user, and requires that every page has its bytes.
func right(t *testing.T, who *syscall.Credential, path, source string) {
	t.Helper()
	c := client.StartAs(t, who, nil)
	c.Open(t, path, client.Map{Private: true, Random: true})
	c.Right(t, client.Request{Count: small.Pages, Source: source})
	c.Close(t)
}
