package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/qemu"
	qmp "github.com/thawfs/thaw/wss/qemu"
)

// balloonInit takes memory, gives it back, and then idles: what it gave back is reported as free.
const balloonInit = `#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t tmpfs -o size=90% tmpfs /tmp
exec </dev/ttyS0 >/dev/ttyS0 2>&1
while read -r m; do insmod /modules/$m; done </modules/order
dd if=/dev/urandom of=/tmp/a bs=1M count=96 2>/dev/null
echo; echo filled
read -r go
rm /tmp/a
echo freed
while read -r line; do
	dd if=/dev/urandom of=/tmp/b bs=1M count=16 2>/dev/null && sha1sum /tmp/b | sha1sum -c -s - || echo broken
	cmp /tmp/b /tmp/b && echo "works $line"
done
`

// A machine on a clone gives memory back, by a balloon and by reporting free pages: QEMU says
// nothing of it, its process shrinks, the guest works on, and another clone has the image's bytes.
func TestBalloon(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest of its own: not with -short")
	}
	cli.NeedFUSE(t)
	tools, err := qemu.Find()
	if err != nil {
		t.Skip(err)
	}
	const memory = 256 << 20
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	content := bytes.Repeat([]byte("what the image has. "), memory/20+1)[:memory]
	if err := os.WriteFile(image, content, 0o600); err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(dir, "initrd")
	f, err := os.Create(initrd)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(tools.WriteSystem(f, []byte(balloonInit), "virtio_pci", "virtio_balloon"), f.Close())
	if err != nil {
		t.Skip(err)
	}
	store := filepath.Join(dir, "store")
	cli.OK(t, "import", store, image, "--name", "vm")
	m := cli.Mount(t, store, "--restore=lazy")

	v := bootBallooned(t, tools, m.Path("vm", "clones", "a", "memory"), initrd, memory)
	v.expect("filled")
	full := v.rss()
	v.say("go")
	v.expect("freed")
	v.until("free pages are given back", func() bool { return v.rss() < full-64<<20 })
	v.say("1")
	v.expect("works 1")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	before := v.rss()
	size := map[string]any{"value": 96 << 20}
	if err := v.monitor.Run(ctx, "balloon", size, nil); err != nil {
		t.Fatal(err)
	}
	v.until("the balloon is filled", func() bool {
		var balloon struct{ Actual int64 }
		return v.monitor.Run(ctx, "query-balloon", nil, &balloon) == nil && balloon.Actual <= 96<<20
	})
	v.say("2")
	v.expect("works 2")
	t.Logf("resident: %d MiB full, %d MiB reported, %d MiB ballooned",
		full>>20, before>>20, v.rss()>>20)
	if text := v.errors.String(); len(text) > 1000 || bytes.Contains([]byte(text), []byte("failed")) {
		t.Errorf("QEMU says: %.1000s", text)
	}
	v.end()
	// The next machine on its clone gets the image, too.
	for _, name := range []string{"memory", "clones/b/memory", "clones/a/memory"} {
		if _, err := cli.Tool(t, time.Minute, "cmp", image, m.Path("vm", name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := m.Stats(t, "vm"); s.Errors != 0 {
		t.Errorf("%v", s)
	}
}

// ballooned is a QEMU with a balloon.
type ballooned struct {
	t       *testing.T
	cmd     *exec.Cmd
	monitor *qmp.QMP
	stdin   interface{ Write([]byte) (int, error) }
	out     lockedBuffer
	errors  lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func bootBallooned(t *testing.T, tools qemu.Tools, memory, initrd string, size int) *ballooned {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "qmp")
	v := &ballooned{t: t}
	v.cmd = exec.Command(tools.QEMU,
		"-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg", "-smp", "1",
		"-m", fmt.Sprintf("%dM", size>>20), "-machine", "pc,memory-backend=ram,graphics=off",
		"-object", fmt.Sprintf("memory-backend-file,id=ram,size=%d,mem-path=%s,share=off", size, memory),
		"-device", "virtio-balloon-pci,free-page-reporting=on",
		"-chardev", "stdio,id=con,signal=off", "-serial", "chardev:con",
		"-qmp", "unix:"+socket+",server=on,wait=off",
		"-kernel", tools.Kernel, "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1 tsc=unstable", "-no-reboot")
	stdin, err := v.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	v.stdin, v.cmd.Stdout, v.cmd.Stderr = stdin, &v.out, &v.errors
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		v.end()
		if t.Failed() {
			t.Logf("console: %s\nQEMU: %.2000s", v.out.String(), v.errors.String())
		}
	})
	var conn net.Conn
	v.until("QEMU listens", func() bool {
		conn, err = net.Dial("unix", socket)
		return err == nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if v.monitor, err = qmp.NewQMP(ctx, conn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.monitor.Close() })
	return v
}

// end ends QEMU, if it has not ended.
func (v *ballooned) end() {
	if v.cmd.ProcessState == nil {
		v.cmd.Process.Kill()
		v.cmd.Wait()
	}
}

func (v *ballooned) say(line string) {
	v.t.Helper()
	if _, err := v.stdin.Write([]byte(line + "\n")); err != nil {
		v.t.Fatal(err)
	}
}

func (v *ballooned) expect(line string) {
	v.t.Helper()
	at := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(line) + `\r?$`)
	v.until("the guest says "+line, func() bool { return at.MatchString(v.out.String()) })
}

func (v *ballooned) until(what string, ok func() bool) {
	v.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) || v.rss() == 0 { // it has ended
			v.t.Fatalf("not within two minutes: %s; %d MiB resident", what, v.rss()>>20)
		}
	}
}

// rss is how much of QEMU is resident, in bytes.
func (v *ballooned) rss() int {
	v.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", v.cmd.Process.Pid))
	if err != nil {
		v.t.Fatal(err)
	}
	n, err := strconv.Atoi(string(bytes.Fields(text)[1]))
	if err != nil {
		v.t.Fatal(err)
	}
	return n * os.Getpagesize()
}
