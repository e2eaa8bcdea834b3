package torture

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/thawfs/thaw/tests/internal/cli"
)

// serve mounts the store for a while: readers of all kinds, commands beside them, and now and then
// a server that is killed.
func (l *commandLife) serve() {
	l.start()
	for range 1 + l.r.IntN(4) {
		switch n := l.r.IntN(8); {
		case n == 0 && l.mount != nil:
			l.killServer()
			l.start()
		case n == 1:
			l.note("restart", "")
			l.mount.Unmount()
			l.start()
		default:
			l.readAndWork()
		}
	}
	l.note("umount", "")
	l.mount.Unmount()
	l.mount = nil
}

func (l *commandLife) start() {
	flags := []string{"--restore=" + [...]string{"lazy", "working-set", "eager"}[l.r.IntN(3)]}
	switch l.r.IntN(6) {
	case 0:
		flags = append(flags, "--prefetch-cap-bytes="+fmt.Sprint(4096*(1+l.r.IntN(500))))
	case 1:
		flags = append(flags, "--prefetch-cap-time=1ms")
	}
	l.note("mount", "%v", flags)
	l.mount = cli.Mount(l.t, l.store, flags...)
}

// readers starts readers of some checkpoints, and gives the names.
func (l *commandLife) readers() (procs []*readerProcess, names []string) {
	all := []string{"copy", "direct", "mmap", "read", "sendfile"}
	for range 1 + l.r.IntN(2) {
		name := l.anyName()
		if name == "" {
			break
		}
		path := l.mount.Path(name, "memory")
		if l.r.IntN(4) == 0 {
			path = l.mount.Path(name, "clones", fmt.Sprint("c", l.r.IntN(3)), "memory")
		}
		l.r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		q := readRequest{
			Path: path, Want: filepath.Join(l.have[name].source, "memory"),
			Ways: slices.Clone(all[:1+l.r.IntN(len(all))]), Seed: l.r.Uint64(), Copy: l.dir,
		}
		l.note("read", "%s by %v", path[len(l.mount.Dir)+1:], q.Ways)
		p, err := startReader(q)
		if err != nil {
			l.t.Fatal(err)
		}
		l.t.Cleanup(func() { _ = p.proc.Kill(0) })
		procs, names = append(procs, p), append(names, name)
	}
	return procs, names
}

// judge takes the readers' answers: right bytes; errors only if the server was killed.
func (l *commandLife) judge(procs []*readerProcess, killed bool) {
	for _, p := range procs {
		a, err := p.wait(l.mount.Abort)
		if err != nil {
			l.t.Error(err)
			continue
		}
		for way, gfns := range a.Wrong {
			slices.Sort(gfns)
			l.t.Errorf("%s by %s: %d pages are wrong: %s", p.q.Path, way, len(gfns), some(gfns))
		}
		if !killed && len(a.Failed)+len(a.Lost) > 0 {
			l.t.Errorf("%s: failed %v, pages lost %v\n%s", p.q.Path, a.Failed, a.Lost, l.mount.Log())
		}
	}
	if l.t.Failed() {
		l.t.FailNow()
	}
}

// readAndWork runs commands while readers read.
func (l *commandLife) readAndWork() {
	procs, reading := l.readers()
	for range l.r.IntN(3) {
		o := l.plan()
		if o == nil || o.after == nil && slices.Contains(reading, o.name) {
			continue // removing what is open is refused, if it is open yet
		}
		l.command(o)
	}
	l.judge(procs, false)
}

// killServer kills the server while readers read: they get errors, or the right bytes.
func (l *commandLife) killServer() {
	procs, _ := l.readers()
	l.note("kill the server", "")
	l.mount.Kill()
	l.judge(procs, true)
	cli.OK(l.t, "umount", l.mount.Dir, "--abort")
	if entries, err := os.ReadDir(l.mount.Dir); err != nil || len(entries) > 0 {
		l.t.Errorf("after umount --abort: %v, %v", entries, err)
	}
}
