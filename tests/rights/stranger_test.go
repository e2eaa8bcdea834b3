package rights

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
)

// attempts is what a stranger tries; each must fail for want of permission. Its arguments are the mount,
// the store, the server, a process that has memory mapped, the number of the connection and thaw.
const attempts = `
mnt=$1 store=$2 server=$3 vmm=$4 connection=$5 thaw=$6
try() {
	if said=$("$@" 2>&1 >/dev/null); then
		echo "LEAK: $*"
	else
		case $said in
		*[Pp]ermission*|*"not permitted"*|*superuser*|*nonexistent*) ;;
		*"could not determine username"*|*"not found in /etc/mtab"*) ;;
		*) echo "ODD: $*: $said" ;;
		esac
	fi
}
try ls "$mnt"
try ls -d "$mnt/."
try stat "$mnt/vm"
try ls "$mnt/vm"
try ls "$mnt/vm/clones"
for file in memory state working-set info.json stats.json clones/mine/memory clones/mine/stats.json; do
	try stat "$mnt/vm/$file"
	try head -c 1 "$mnt/vm/$file"
done
try dd if=/dev/zero of="$mnt/vm/clones/mine/memory" bs=1 count=1 conv=notrunc
try cat "$mnt/.thaw/metrics"
try readlink -v "$mnt/.thaw/socket"

try ls "$store"
for file in thaw-store.json packs checkpoints index control.sock server.log lock; do
	try ls "$store/$file/"
	try head -c 1 "$store/$file"
done
try "$thaw" ls "$store"
try "$thaw" export "$store" vm "/tmp/exported-by-$$"
try "$thaw" stats "$mnt"
try "$thaw" umount "$mnt"
try "$thaw" umount --abort "$mnt"
try fusermount3 -u "$mnt"
try umount "$mnt"
try sh -c "echo 1 >/sys/fs/fuse/connections/$connection/abort"

for pid in $server $vmm; do
	for file in mem maps smaps environ pagemap auxv; do
		try head -c 1 /proc/$pid/$file
	done
	try ls /proc/$pid/fd
	try ls /proc/$pid/map_files
	try ls /proc/$pid/root/
	try ls /proc/$pid/cwd/
	for fd in 0 3 4 5 6 7 8 9; do
		try head -c 1 /proc/$pid/fd/$fd
	done
	try kill -TERM $pid
done

# Root of a user namespace of his own has no more rights on what is outside of it.
if unshare -Ur true 2>/dev/null; then
	try unshare -Ur head -c 1 "$mnt/vm/memory"
	try unshare -Ur ls "$mnt/vm"
fi
echo done
`

// tries runs the attempts as a user, and requires that nothing was got.
func tries(t *testing.T, who *syscall.Credential, m *cli.Mounted, store string, vmm int) {
	t.Helper()
	out := as(t, who, attempts, m.Dir, store, strconv.Itoa(m.Pid()), strconv.Itoa(vmm), m.Connection(),
		cli.Binary())
	if out != "done\n" {
		t.Errorf("user %d, group %d, mount %v:\n%s", who.Uid, who.Gid, m.Dir, out)
	}
}

// TestStranger: a user who is not let in reads nothing, however a store is mounted, be his group root's or
// the files' own; neither before somebody else has read it nor after, nor while. Who is let in reads all.
func TestStranger(t *testing.T) {
	needRoot(t)
	root := cred(0, 0)
	left := 7
	if testing.Short() {
		left = 1 // another one in each run
	}
	for name, c := range map[string]struct {
		flags []string
		let   []*syscall.Credential
	}{
		"alone": {nil, []*syscall.Credential{root}},
		"user": {[]string{"--allow-user=65534"},
			[]*syscall.Credential{root, cred(friend, friend), cred(friend, stranger)}},
		"group": {[]string{"--allow-group=65530"},
			[]*syscall.Credential{root, cred(friend, club), cred(friend, friend, club)}},
		"both": {[]string{"--allow-user=65534,65529", "--allow-group=65530"},
			[]*syscall.Credential{cred(friend, friend), cred(65528, club), cred(65529, 65529)}},
		"owner": {[]string{"--uid=65534"}, []*syscall.Credential{root, cred(friend, friend)}},
		"owning group": {[]string{"--gid=65530"},
			[]*syscall.Credential{root, cred(friend, club), cred(friend, friend, 7, club)}},
		"mode": {[]string{"--uid=65534", "--gid=65530", "--mode=0440"},
			[]*syscall.Credential{cred(friend, friend), cred(65528, 65528, club)}},
	} {
		if left--; left < 0 {
			break
		}
		t.Run(name, func(t *testing.T) {
			dir := open(t)
			store, source := stored(t, dir)
			m := cli.MountAs(t, nil, store, filepath.Join(dir, "mnt"), c.flags...)
			vmm := client.StartAs(t, c.let[0], nil)
			tries(t, cred(stranger, 0), m, store, m.Pid())
			vmm.Open(t, m.Path("vm/memory"), client.Map{Private: true, Random: true})
			vmm.Right(t, client.Request{Count: small.Pages, Source: source})
			for _, who := range c.let {
				right(t, who, m.Path("vm/memory"), source)
				if out := as(t, who, `cat "$1/vm/state" && ls "$1" "$1/vm" >/dev/null`, m.Dir); out != "the state" {
					t.Errorf("user %d reads the state %q", who.Uid, out)
				}
			}
			tries(t, cred(stranger, stranger), m, store, vmm.Pid())
			vmm.Right(t, client.Request{Count: small.Pages, Source: source})
			vmm.Close(t)
			m.Unmount()
		})
	}
}

// TestCloneOfFriends: of two users who are let in each has his own clone, and not the other's; nobody but
// the server's user reads its metrics; nothing can be written.
func TestCloneOfFriends(t *testing.T) {
	needRoot(t)
	dir := open(t)
	store, source := stored(t, dir)
	m := cli.MountAs(t, nil, store, filepath.Join(dir, "mnt"), "--allow-group=65530")
	one, two := cred(friend, club), cred(stranger, stranger, club)
	c := client.StartAs(t, one, nil)
	c.Open(t, m.Path("vm/clones/one/memory"), client.Map{ReadWrite: true, Private: true, Random: true})
	c.Right(t, client.Request{Count: small.Pages, Source: source})
	out := as(t, two, `
		head -c 1 "$1/vm/clones/one/memory" >/dev/null && echo reads the clone of another
		dd if=/dev/zero of="$1/vm/clones/one/memory" bs=1 count=1 conv=notrunc && echo writes to it
		dd if=/dev/zero of="$1/vm/memory" bs=1 count=1 conv=notrunc && echo writes to memory
		cat "$1/.thaw/metrics" >/dev/null && echo reads metrics
		head -c 1 "$1/vm/clones/two/memory" | wc -c`, m.Dir)
	if strings.TrimSpace(out) != "1" {
		t.Errorf("another friend: %s", out)
	}
	c.Right(t, client.Request{Count: small.Pages, Source: source})
	c.Close(t)
	m.Unmount()
}

// TestOpenStaysOpen: what a user has open when he gives his rights away, or hands on, can be read still: a
// descriptor is a right. Where others are let in its size can be asked for, too, as a VMM does.
func TestOpenStaysOpen(t *testing.T) {
	needRoot(t)
	dir := open(t)
	store, source := stored(t, dir)
	for want, flags := range map[string][]string{
		"same\nno size\nrefused\n": nil,
		"same\nsize\nrefused\n":    {"--allow-user=65534"},
	} {
		m := cli.MountAs(t, nil, store, filepath.Join(dir, "mnt"), flags...)
		out := as(t, cred(0, 0), `exec 3<"$1/vm/memory"
			as="setpriv --reuid=$3 --regid=$3 --clear-groups"
			$as sh -c 'head -c "$1" <&3' sh $4 | cmp - "$2" && echo same
			$as sh -c 'stat -L /dev/stdin <&3 >/dev/null && echo size || echo no size'
			$as head -c 1 "$1/vm/memory" || echo refused`, m.Dir, source, strconv.Itoa(stranger),
			strconv.FormatInt(small.Bytes(), 10))
		if out != want {
			t.Errorf("%v: %q, want %q", flags, out, want)
		}
		m.Unmount()
	}
}

// TestRightsRefused: what makes no sense is said, before anything is mounted.
func TestRightsRefused(t *testing.T) {
	needRoot(t)
	dir := open(t)
	store, _ := stored(t, dir)
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	for flags, want := range map[string]string{
		"--mode=0640":                             "only read",
		"--mode=rw":                               "only read",
		"--allow-user=no-such-user":               "unknown user",
		"--allow-group=no-such-group":             "unknown group",
		"--uid=-1":                                "--uid=-1",
		"--gid=4294967295":                        "--gid=4294967295",
		"--user=no-such-user":                     "user no-such-user",
		"--allow-other --allow-user=65534":        "lets all users in",
		"--allow-group=1,,2":                      "an empty name",
		"--allow-user=" + numbers(1000, 1000+600): "make them members of one group",
	} {
		r := cli.Fails(t, "usage", append([]string{"mount", store, mnt}, strings.Fields(flags)...)...)
		if !strings.Contains(r.Stderr, want) {
			t.Errorf("%.60s: want %q: %s", flags, want, r.Stderr)
		}
	}
}

// numbers lists the numbers from first on, less than end.
func numbers(first, end int) string {
	var list []string
	for n := first; n < end; n++ {
		list = append(list, strconv.Itoa(n))
	}
	return strings.Join(list, ",")
}
