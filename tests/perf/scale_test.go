package perf

import (
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
)

var (
	scaleCheckpoints = flag.Int("scale.checkpoints", 1000, "checkpoints of the large store")
	scalePages       = flag.Int("scale.pages", 64<<10, "new pages of each: 64 Ki of them stand for 100 MB")
	scaleStore       = flag.String("scale.store", "",
		"directory of the large store, which is made there, or made "+
			"complete, and kept; what is measured happens to a copy")
)

// scale is a store that is large in every way but one: its pages have eight bytes each, and zeros. So a
// page takes about 30 bytes in a pack instead of 1,600, while all that listing, opening, importing,
// collecting and checking without data have to do with a page is as in a store of such a size: its slot in
// the directory of its pack, its hash, its row in the index, its place in page maps.
//
// It has twenty machines. Each state of one changes pages in runs of 64 anywhere in its memory; a tenth of
// them become pages that other machines have, or had, as well.
type scale struct {
	t        *testing.T
	dir      string
	machines []scaleMachine
	rnd      *rand.Rand
	newPages int
	last     uint64
}

// scaleMachine is the memory of a machine: a number for each page, 0 for zeros.
type scaleMachine struct {
	ids   []uint64
	state int
}

const (
	scaleMachines = 20
	scaleRun      = 64
)

func newScale(t *testing.T, newPages int) *scale {
	s := &scale{t: t, rnd: rand.New(rand.NewPCG(1, 2)), newPages: newPages, last: 1 << 40}
	for range scaleMachines {
		s.machines = append(s.machines, scaleMachine{ids: make([]uint64, max(2*newPages, 16<<10))})
	}
	return s
}

// advance changes a machine.
func (s *scale) advance(machine, pages int) *scaleMachine {
	m := &s.machines[machine]
	m.state++
	for range max(pages/scaleRun, 1) {
		at := s.rnd.IntN(len(m.ids)/scaleRun) * scaleRun
		common := uint64(s.rnd.IntN(4*s.newPages)) * scaleRun
		alike := s.rnd.IntN(10) == 0
		for i := range scaleRun {
			s.last++
			m.ids[at+i] = s.last
			if alike {
				m.ids[at+i] = 1 + common + uint64(i)
			}
		}
	}
	return m
}

func (m *scaleMachine) Size() int64 { return int64(len(m.ids)) * image.PageSize }

func (m *scaleMachine) Extents() ([]index.Run, error) {
	return []index.Run{{GFN: 0, Count: uint64(len(m.ids))}}, nil
}

// ReadAt reads whole pages.
func (m *scaleMachine) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	for i := 0; i < len(b); i += image.PageSize {
		binary.LittleEndian.PutUint64(b[i:], m.ids[(off+int64(i))/image.PageSize])
	}
	return len(b), nil
}

// write writes the memory as a file.
func (m *scaleMachine) write(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, io.NewSectionReader(m, 0, m.Size())); err != nil {
		t.Fatal(err)
	}
}

func scaleName(machine, state int) string { return fmt.Sprintf("m%02d.s%03d", machine, state) }

// make imports the checkpoints, of all machines in turn, in this process: 1,000 commands would say more
// about starting commands. Those that the store has already are not imported again.
func (s *scale) make(checkpoints int) {
	s.t.Helper()
	store, err := index.Open(s.t.Context(), s.dir, index.OpenOptions{Create: true, Profile: index.ProfileFast})
	if err != nil {
		s.t.Fatal(err)
	}
	defer store.Close()
	list, err := store.List(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	start := time.Now()
	for i := range checkpoints {
		m := s.advance(i%scaleMachines, s.newPages)
		if i < len(list) {
			continue
		}
		o := index.ImportOptions{Name: scaleName(i%scaleMachines, m.state), Profile: index.ProfileFast}
		src := index.Source{Memory: "a machine", Image: m}
		if _, _, err := store.Import(s.t.Context(), src, o); err != nil {
			s.t.Fatal(err)
		}
		if (i+1)%100 == 0 {
			s.t.Logf("%d checkpoints after %.0f s", i+1, time.Since(start).Seconds())
		}
	}
}

// copy makes a store that shares the packs and roots, which nobody changes, with this one.
func (s *scale) copy(to string) {
	s.t.Helper()
	_, err := cli.Tool(s.t, 5*time.Minute, "sh", "-c",
		`mkdir "$1" && cp -al "$0/packs" "$0/checkpoints" "$1" && cp -a "$0/numbers" "$0"/*.json "$1" &&
		{ [ ! -e "$0/index" ] || cp -a "$0/index" "$1"; }`,
		s.dir, to)
	if err != nil {
		s.t.Fatal(err)
	}
}

// scaleLine is one line of the table.
type scaleLine struct {
	what string
	took effort
	note string
}

// TestManyCheckpoints measures what commands take in a store of very many checkpoints and pages. What it
// asserts is that they do the right thing; without -perf the store is small.
func TestManyCheckpoints(t *testing.T) {
	checkpoints, pages := *scaleCheckpoints, *scalePages
	if !*full {
		checkpoints, pages = 60, 128
	}
	s := newScale(t, pages)
	dir := t.TempDir()
	if s.dir = *scaleStore; s.dir == "" {
		s.dir = filepath.Join(dir, "large")
	}
	s.make(checkpoints)
	store := filepath.Join(dir, "store")
	s.copy(store)
	lines := s.measure(store, dir)
	var out strings.Builder
	fmt.Fprintf(&out, "%d checkpoints of %d machines, %d new pages each: %d pages, which stand for %d GB\n"+
		"%-44s %10s %10s %10s\n", checkpoints, scaleMachines, pages, checkpoints*pages, checkpoints*pages*1600/1e9,
		"", "seconds", "CPU s", "peak MiB")
	for _, l := range lines {
		fmt.Fprintf(&out, "%-44s %10.3f %10.3f %10d  %s\n", l.what, l.took.Wall.Seconds(), l.took.CPU.Seconds(),
			l.took.Peak>>20, l.note)
	}
	t.Logf("\n%s", out.String())
}

// measure runs the commands.
func (s *scale) measure(store, dir string) (lines []scaleLine) {
	t := s.t
	t.Helper()
	run := func(what string, args ...string) {
		t.Helper()
		said := strings.Builder{}
		took := spend(t, cli.Command(args...), time.Hour, &said)
		note := strings.TrimSpace(said.String())
		if len(note) > 110 {
			note = ""
		}
		lines = append(lines, scaleLine{what, took, note})
		t.Logf("%s: %.3f s, %.3f s of CPU, %d MiB", what, took.Wall.Seconds(), took.CPU.Seconds(), took.Peak>>20)
	}
	run("ls", "ls", store)
	run("inspect one", "inspect", store, scaleName(3, 2))
	lines = append(lines, s.mounted(store)...)
	run("gc --dry-run, nothing to do", "gc", store, "--dry-run")
	run("gc, nothing to do", "gc", store)
	memory := filepath.Join(dir, "memory")
	for i := range 3 {
		m := s.advance(5, s.newPages/16)
		m.write(t, memory)
		run(fmt.Sprintf("import of a state with %d new pages", s.newPages/16), "import", store, memory,
			"--name", scaleName(5, m.state+i*1000))
	}
	run("check", "check", store)
	s.remove(store)
	run("gc --dry-run, a tenth removed", "gc", store, "--dry-run")
	run("gc, a tenth removed", "gc", store)
	run("gc, once more", "gc", store)
	m := s.advance(5, s.newPages/16)
	m.write(t, memory)
	run("import after that", "import", store, memory, "--name", "last")
	run("check after that", "check", store)
	s.right(store, "last", m)
	return lines
}

// remove removes a tenth of the checkpoints, and all that one machine has.
func (s *scale) remove(dir string) {
	s.t.Helper()
	store, err := index.Open(s.t.Context(), dir, index.OpenOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer store.Close()
	list, err := store.List(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for i, c := range list {
		if i%20 == 7 || strings.HasPrefix(c.Name, "m11.") {
			if err := store.Remove(s.t.Context(), c.Name); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// mounted mounts the store and opens one image.
func (s *scale) mounted(store string) []scaleLine {
	var lines []scaleLine
	s.t.Run("mount", func(t *testing.T) {
		start := time.Now()
		m := cli.Mount(t, store, "--restore=lazy")
		lines = append(lines, scaleLine{"mount, until it is ready", effort{Wall: time.Since(start),
			Peak: peakOf(t, m.Pid())}, ""})
		c := m.Client(t)
		start = time.Now()
		c.Open(t, m.Path(scaleName(3, 2), "memory"), client.Map{Private: true})
		lines = append(lines, scaleLine{"open of one memory on the mount", effort{Wall: time.Since(start),
			Peak: peakOf(t, m.Pid())}, ""})
		start = time.Now()
		if out, err := exec.Command("ls", "-l", m.Dir).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		lines = append(lines, scaleLine{"ls -l of the mount", effort{Wall: time.Since(start),
			Peak: peakOf(t, m.Pid())}, ""})
		c.Close(t)
		m.Unmount()
	})
	return lines
}

// peakOf is the most memory that a process had.
func peakOf(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no peak of memory in /proc")
	return 0
}

// right requires that a checkpoint has the memory of a machine.
func (s *scale) right(dir, name string, m *scaleMachine) {
	s.t.Helper()
	store, err := index.Open(s.t.Context(), dir, index.OpenOptions{ReadOnly: true})
	if err != nil {
		s.t.Fatal(err)
	}
	defer store.Close()
	img, err := store.OpenImage(s.t.Context(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	defer img.Close()
	page := make([]byte, image.PageSize)
	for gfn, id := range m.ids {
		if err := img.ReadPage(uint64(gfn), page); err != nil {
			s.t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint64(page); got != id {
			s.t.Fatalf("page %d of %s is %d, want %d", gfn, name, got, id)
		}
	}
}
