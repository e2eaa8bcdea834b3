package torture

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/wss"
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
	policies := [...]string{"lazy", "working-set", "working-set-full", "eager"}
	flags := []string{"--restore=" + policies[l.r.IntN(len(policies))]}
	if l.r.IntN(4) == 0 {
		flags = append(flags, "--fill=1GiB")
	}
	switch l.r.IntN(6) {
	case 0:
		flags = append(flags, "--prefetch-cap-bytes="+fmt.Sprint(4096*(1+l.r.IntN(500))))
	case 1:
		flags = append(flags, "--prefetch-cap-time=1ms")
	}
	if l.r.IntN(2) == 0 {
		flags = append(flags, "--repack-after=1ms") // beside everything else
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
		p.name = name
		l.t.Cleanup(func() { _ = p.proc.Kill(0) })
		procs, names = append(procs, p), append(names, name)
	}
	return procs, names
}

// judge takes the readers' answers: right bytes, and errors only if the server was killed. What was
// removed before it was opened is not there.
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
		for way, why := range a.Failed {
			if strings.HasSuffix(why, "open: no such file or directory") && l.removed[p.name] {
				delete(a.Failed, way)
			}
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
	l.avoid, l.removed = reading, map[string]bool{}
	var sources []string // of what is removed; its readers still compare with it
	for range l.r.IntN(3) {
		o := l.plan()
		if o == nil || o.after != nil || !slices.Contains(reading, o.name) {
			l.command(o)
			continue
		}
		if source := l.removeBusy(o.name); source != "" {
			sources = append(sources, source)
		}
	}
	l.judge(procs, false)
	l.avoid = nil
	for _, dir := range sources {
		if err := os.RemoveAll(dir); err != nil {
			l.t.Fatal(err)
		}
	}
	if l.r.IntN(3) == 0 {
		l.record()
	}
}

// removeBusy removes what readers read: that is refused while any of them has it open. It gives the
// source of what was removed.
func (l *commandLife) removeBusy(name string) (source string) {
	const busy = 21
	switch r := cli.Run(l.t, "rm", l.store, name); r.Code {
	case 0:
		l.removed[name] = true
		source = l.have[name].source
		delete(l.have, name)
	case busy:
		l.also("busy")
	default:
		l.t.Fatal(r)
	}
	return source
}

// record makes the working set of a checkpoint of what was read of it.
func (l *commandLife) record() {
	name := l.anyName()
	if name == "" {
		return
	}
	l.note("record", "%s", name)
	r := cli.Run(l.t, "ws", "record", l.mount.Path(name), "--max-share=100", "--json")
	if r.Code != 0 {
		l.also("%s", r.ErrorName())
		if !slices.Contains([]string{"not-cold", "bad-working-set", "busy"}, r.ErrorName()) {
			l.t.Fatal(r)
		}
		return
	}
	text := cli.OK(l.t, "ws", "show", l.store, name, "--text").Stdout
	set, err := wss.Parse(strings.NewReader(text))
	if err == nil {
		err = set.Validate(uint64(len(l.have[name].pages)))
	}
	if err != nil {
		l.t.Fatalf("the recorded set of %s: %v\n%s", name, err, text)
	}
	after := &checkpoint{
		pages: l.have[name].pages, files: maps.Clone(l.have[name].files), image: l.have[name].image,
	}
	after.files[setFile] = []byte(text)
	l.settle(&order{name: name, after: after})
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
