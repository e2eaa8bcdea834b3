package perf

import (
	"bufio"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/proc"
)

var loadOpens = flag.Int("load.opens", 1000, "images that are opened at once")

// openFiles is how many files the server of TestManyOpens may have open.
const openFiles = 256

// TestManyOpens opens very many images at once, each of which has packs of its own, on a server that may have
// few files open; reads all of every image; and prints how long each open took and what the server took.
func TestManyOpens(t *testing.T) {
	cli.NeedFUSE(t)
	images, pages := *loadOpens, uint64(256)
	if !*full {
		images, pages = 80, 64
	}
	store := filepath.Join(t.TempDir(), "store")
	importSmall(t, store, images, pages)
	w := watch(t, cli.MountFiles(t, openFiles, store, watchedFlags...))
	before := w.settled()
	o := startOpener(t, w.Mounted, openerTask{Mount: w.Dir, Images: images, Pages: pages})
	opens := o.next(t)
	open := w.settled()
	reads := o.next(t)
	o.end(t)
	peak := w.most()
	t.Log(spread("opens:", opens))
	t.Log(spread("reading all of an image:", reads))
	t.Logf("server before:  %v", before)
	t.Logf("all open:       %v", open)
	t.Logf("at most:        %v", peak)
	t.Logf("all closed:     %v", w.settled())
	if peak.files > openFiles {
		t.Errorf("the server had %d files open, and may have %d", peak.files, openFiles)
	}
	// Buffers that all images share are made by the first opens.
	const shared = 8 << 20
	if each := (open.heap - before.heap - shared) / int64(images); each > 64<<10+int64(pages)*48 {
		t.Errorf("an open image takes %d bytes of the server", each)
	}
}

// importSmall imports small images, each with a working set.
func importSmall(t *testing.T, store string, images int, pages uint64) {
	t.Helper()
	s, err := index.Open(t.Context(), store, index.OpenOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	file := filepath.Join(t.TempDir(), "memory")
	for i := range images {
		if err := openerSpec(i, pages).Write(file); err != nil {
			t.Fatal(err)
		}
		src, err := index.OpenSource(file)
		if err != nil {
			t.Fatal(err)
		}
		o := index.ImportOptions{Name: openerName(i), WorkingSet: []index.Run{{GFN: pages / 4, Count: pages / 4}}}
		if _, _, err := s.Import(t.Context(), src, o); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}

// openerProcess is an opener.
type openerProcess struct {
	proc *proc.Process
	in   *os.File
	out  *os.File
	buf  *bufio.Reader
}

func startOpener(t *testing.T, m *cli.Mounted, task openerTask) *openerProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	theirs, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, said, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), openerEnv+"="+string(spec))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, said, os.Stderr
	p, err := proc.Start(cmd)
	theirs.Close()
	said.Close()
	if err != nil {
		t.Fatal(err)
	}
	o := &openerProcess{proc: p, in: in, out: out, buf: bufio.NewReader(out)}
	t.Cleanup(func() {
		in.Close()
		if err := p.Kill(5 * time.Second); err != nil {
			t.Error(err)
			m.Abort()
			_ = p.Kill(5 * time.Second)
		}
		out.Close()
	})
	return o
}

// next has it do what comes next.
func (o *openerProcess) next(t *testing.T) []int64 {
	t.Helper()
	if _, err := o.in.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	_ = o.out.SetReadDeadline(time.Now().Add(10 * time.Minute))
	line, err := o.buf.ReadBytes('\n')
	var a openerAnswer
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		t.Fatalf("the opener: %v (%s)", err, proc.State(o.proc.Pid()))
	}
	if a.Error != "" {
		t.Fatal(a.Error)
	}
	return a.NS
}

// end closes all files.
func (o *openerProcess) end(t *testing.T) {
	t.Helper()
	o.in.Close()
	if err := o.proc.Wait(time.Minute); err != nil {
		t.Fatal(err)
	}
}
