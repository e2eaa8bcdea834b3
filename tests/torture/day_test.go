package torture

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
)

// dayLife is a life of a store that is mounted all the time, by a server that is looked at now and then: what
// it takes of its host must not become more.
type dayLife struct {
	*commandLife
	at    string // where the server's metrics are
	marks []mark
}

// mark is what a server takes when nothing is open and its garbage is collected.
type mark struct {
	step                    int
	heap, files, goroutines float64
}

// markEvery is how many steps lie between two marks, and fewMarks how many say something.
const (
	markEvery = 8
	fewMarks  = 9
)

// TestDay: imports, restores, sets, records, renamings, removals, collections, repackings, clients that are
// killed, and in the first sixth of the time mounts that come and go. In the end nothing of all that is left.
func TestDay(t *testing.T) {
	l := &dayLife{commandLife: &commandLife{life: newLife(t, *dayFlag, 1600), dir: t.TempDir()}}
	l.store = filepath.Join(l.dir, "store")
	first := l.imports()
	cli.OK(t, first.args...)
	l.settle(first)
	l.dawn()
	morning := l.begun.Add(l.until.Sub(l.begun) / 6)
	for n := 1; l.goesOn(); n++ {
		if time.Now().Before(morning) && l.r.IntN(10) == 0 {
			l.note("remount", "")
			l.mount.Unmount()
			l.dawn()
		}
		l.step()
		if n%markEvery == 0 {
			l.mark()
		}
	}
	l.judgeMarks()
	l.verify()
	l.note("umount", "")
	l.mount.Unmount()
	l.leaveNothing()
}

// dawn mounts the store.
func (l *dayLife) dawn() {
	l.note("mount", "")
	l.mount = cli.Mount(l.t, l.store, "--debug-listen=127.0.0.1:0", "--repack-after=1s", "--learn",
		"--fill=64MiB")
	l.at, l.marks = l.mount.DebugURL(), nil
}

func (l *dayLife) step() {
	switch n := l.r.IntN(20); {
	case n < 8:
		l.readAndWork()
	case n < 10:
		l.killReaders()
	case n < 12:
		l.rename()
	default:
		l.command(l.plan())
	}
}

// killReaders kills clients while they read, or while they wait for their restore.
func (l *dayLife) killReaders() {
	procs, _ := l.readers()
	timer := time.NewTimer(time.Duration(l.r.IntN(30)) * time.Millisecond)
	<-timer.C
	for _, p := range procs {
		l.tally["kill of a client"]++
		if err := p.proc.Kill(10 * time.Second); err != nil {
			l.t.Fatalf("%s: %v", p.q.Path, err)
		}
	}
}

// rename gives a checkpoint another name.
func (l *dayLife) rename() {
	from := l.anyName()
	if from == "" {
		return
	}
	to := l.newName()
	l.note("mv", "%s %s", from, to)
	cli.OK(l.t, "mv", l.store, from, to)
	l.have[to] = l.have[from]
	delete(l.have, from)
}

// mark looks at the server. A collection makes it close the images that nobody has open.
func (l *dayLife) mark() {
	cli.OK(l.t, "gc", l.store)
	l.get("/debug/pprof/heap?gc=1")
	text := l.get("/metrics")
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", l.mount.Pid()))
	if err != nil {
		l.t.Fatal(err)
	}
	m := mark{step: l.steps, files: float64(len(fds))}
	for line := range strings.Lines(text) {
		for name, into := range map[string]*float64{
			"go_memstats_heap_alloc_bytes ": &m.heap, "go_goroutines ": &m.goroutines,
		} {
			if value, ok := strings.CutPrefix(line, name); ok {
				*into, _ = strconv.ParseFloat(strings.TrimSpace(value), 64)
			}
		}
	}
	l.marks = append(l.marks, m)
}

func (l *dayLife) get(path string) string {
	c := http.Client{Timeout: time.Minute}
	r, err := c.Get(l.at + path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(text)
}

// judgeMarks compares the last third of the marks with the first.
func (l *dayLife) judgeMarks() {
	for _, x := range []struct {
		what  string
		of    func(mark) float64
		slack float64 // how much more there may be, besides a tenth
	}{
		{"bytes of heap", func(m mark) float64 { return m.heap }, 2 << 20},
		{"descriptors", func(m mark) float64 { return m.files }, 8},
		{"goroutines", func(m mark) float64 { return m.goroutines }, 8},
	} {
		if len(l.marks) < fewMarks {
			l.t.Logf("%d marks: too few to say whether the server grows", len(l.marks))
			return
		}
		third := len(l.marks) / 3
		before, after := middle(l.marks[:third], x.of), middle(l.marks[len(l.marks)-third:], x.of)
		l.t.Logf("%s: %.0f in the first third of %d marks, %.0f in the last", x.what, before, len(l.marks), after)
		if after > before*1.1+x.slack {
			l.t.Errorf("there are more and more %s: %v", x.what, l.marks)
		}
	}
}

func middle(marks []mark, of func(mark) float64) float64 {
	sorted := slices.SortedFunc(slices.Values(marks), func(a, b mark) int { return cmp.Compare(of(a), of(b)) })
	return of(sorted[len(sorted)/2])
}

// leaveNothing removes all checkpoints and collects the garbage: then the store has no packs, roots or files
// that were being written, and nothing that was learned about a checkpoint.
func (l *dayLife) leaveNothing() {
	if names := l.names(); len(names) > 0 {
		cli.OK(l.t, append([]string{"rm", l.store}, names...)...)
	}
	cli.OK(l.t, "gc", l.store)
	for _, dir := range []string{"packs", "checkpoints", "playout"} {
		err := filepath.WalkDir(filepath.Join(l.store, dir), func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			l.t.Errorf("left: %s", path)
			return nil
		})
		if err != nil && !os.IsNotExist(err) {
			l.t.Error(err)
		}
	}
}
