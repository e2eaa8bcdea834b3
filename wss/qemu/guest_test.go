package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thawfs/thaw/wss/ramfile"
	"github.com/thawfs/thaw/wss/scan"
)

func sample(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParsePlaces(t *testing.T) {
	for name, c := range map[string]struct {
		file uint64
		want []ramfile.Place
	}{
		"mtree-pc": {512 << 20, []ramfile.Place{{GPA: 0, Size: 512 << 20, Offset: 0}}},
		"mtree-q35": {5 << 30, []ramfile.Place{{GPA: 0, Size: 0xa0000, Offset: 0},
			{GPA: 0xc0000, Size: 2<<30 - 0xc0000, Offset: 0xc0000},
			{GPA: 4 << 30, Size: 3 << 30, Offset: 2 << 30}}},
	} {
		got, err := parsePlaces(sample(t, name), c.file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		// What of the legacy area is RAM is up to the firmware: compare the ends.
		if len(got) == 0 || got[0].GPA != 0 || got[len(got)-1] != c.want[len(c.want)-1] &&
			got[len(got)-1].GPA+got[len(got)-1].Size !=
				c.want[len(c.want)-1].GPA+c.want[len(c.want)-1].Size {
			t.Errorf("%s: got %#x, want %#x", name, got, c.want)
		}
		for i := 1; i < len(got); i++ {
			if got[i].GPA < got[i-1].GPA+got[i-1].Size {
				t.Errorf("%s: %#x and %#x overlap", name, got[i-1], got[i])
			}
		}
	}
	if _, err := parsePlaces(sample(t, "mtree-pc"), 256<<20); err == nil {
		t.Error("a file that is too small was taken")
	}
	if _, err := parsePlaces("nothing", 1<<30); err == nil {
		t.Error("a machine without RAM was taken")
	}
}

func TestParseRegisters(t *testing.T) {
	got, err := parseRegisters(sample(t, "registers-one"))
	want := []scan.CPU{{CR0: 0x80050033, CR3: 0x20e6000, CR4: 0x6b0, EFER: 0xd01, RIP: 0x568943}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	got, err = parseRegisters(sample(t, "registers-two"))
	if err != nil || len(got) != 2 || got[0].Halted || !got[1].Halted || got[0].RIP != 0xfff0 {
		t.Errorf("two vCPUs that were not started: got %+v, %v", got, err)
	}
	for _, text := range []string{"", "CPU#0\nPC=1 X0=2\n"} {
		if got, err := parseRegisters(text); err == nil {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func FuzzMonitor(f *testing.F) {
	for _, name := range []string{"mtree-pc", "registers-one"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		const size = 1 << 30
		places, err := parsePlaces(text, size)
		for i, p := range places {
			if err == nil && (p.Size == 0 || p.Offset+p.Size > size ||
				i > 0 && p.GPA < places[i-1].GPA+places[i-1].Size) {
				t.Errorf("places %#x", places)
			}
		}
		_, _ = parseRegisters(text)
	})
}

// monitorAnswer is how QEMU answers human-monitor-command.
func monitorAnswer(t *testing.T, text string) string {
	t.Helper()
	b, err := json.Marshal(map[string]string{"return": text})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// pagingCPU is a vCPU whose page tables are at 0x1000.
const pagingCPU = "CPU#0\nRIP=1 HLT=1\nCR0=80000001 CR2=0 CR3=1000 CR4=20\nEFER=500"

// words is a page at 0x1000 as the monitor shows it, of words that are all the same.
func words(v uint64) string {
	var b strings.Builder
	for i := range pageSize / 16 {
		fmt.Fprintf(&b, "%016x: %#018x %#018x\r\n", 0x1000+16*i, v, v)
	}
	return b.String()
}

// TestOtherMemory: a file that has not what the machine has in its page tables is refused, and the
// machine goes on.
func TestOtherMemory(t *testing.T) {
	ram := filepath.Join(t.TempDir(), "ram")
	if err := os.WriteFile(ram, make([]byte, 5*pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		page string
		want error
	}{
		"its own":     {words(0), nil},
		"another one": {words(0x67), ErrOtherMemory},
	} {
		m := newMachine(t, 5, func() string { return pagingCPU }, c.page)
		g, err := NewGuest(t.Context(), m.qmp, ram)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err == nil {
			g.Close()
		}
		if stops := m.stops.Load(); stops != 1 || m.stopped.Load() {
			t.Errorf("%s: %d stops; stopped now: %v", name, stops, m.stopped.Load())
		}
	}
	for _, text := range []string{"", "1000: 0x1", "1000: x", words(1) + words(1)} {
		if _, err := parseWords(text); err == nil {
			t.Errorf("%.20q was taken for a page", text)
		}
	}
}

// machine is a fake QEMU that knows whether it runs.
type machine struct {
	qmp     *QMP
	stopped atomic.Bool
	stops   atomic.Int32
}

// newMachine has so many pages of RAM, the registers that it is told, and one page at 0x1000.
func newMachine(t *testing.T, pages int, registers func() string, page string) *machine {
	t.Helper()
	m := new(machine)
	answers := map[string]func() string{
		`"stop"`: func() string { m.stops.Add(1); m.stopped.Store(true); return `{"return": {}}` },
		`"cont"`: func() string { m.stopped.Store(false); return `{"return": {}}` },
		`"query-status"`: func() string {
			if m.stopped.Load() {
				return `{"return": {"status": "paused"}}`
			}
			return `{"return": {"status": "running"}}`
		},
		`"info mtree -f"`: func() string {
			return monitorAnswer(t, fmt.Sprintf("  %016x-%016x (prio 0, ram): ram\n", 0,
				pages*pageSize-1))
		},
		`"info registers -a"`: func() string { return monitorAnswer(t, registers()) },
		`"xp /512xg 0x1000"`:  func() string { return monitorAnswer(t, page) },
	}
	q, err := NewQMP(t.Context(), serveQMP(t, func(line string) string {
		for command, answer := range answers {
			if strings.Contains(line, command) {
				return answer()
			}
		}
		return `{"return": {}}`
	}))
	if err != nil {
		t.Fatal(err)
	}
	m.qmp = q
	return m
}

// TestCutShort: a scan that is ended while the machine is paused lets it go on.
func TestCutShort(t *testing.T) {
	ram := filepath.Join(t.TempDir(), "ram")
	if err := os.WriteFile(ram, make([]byte, 5*pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asked int
	m := newMachine(t, 5, func() string {
		if asked++; asked == 3 { // the second time of the scan, the machine stopped
			cancel()
			<-ctx.Done()
		}
		return pagingCPU
	}, words(0))
	g, err := NewGuest(ctx, m.qmp, ram)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	tables, err := scan.NewTables(g, scan.TableOptions{TestTime: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil || errors.Is(err, scan.ErrNoBits) { // nothing runs here, so no bits come back
		_, err = tables.Sweep(ctx)
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a scan that was cut short ends with %v", err)
	}
	if m.stops.Load() < 2 || m.stopped.Load() {
		t.Errorf("%d stops; stopped now: %v", m.stops.Load(), m.stopped.Load())
	}
}

// TestGuest goes through what the scanner does to a machine whose RAM has a hole.
func TestGuest(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ram := filepath.Join(t.TempDir(), "ram")
	if err := os.WriteFile(ram, make([]byte, 5*pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	q, err := NewQMP(ctx, fakeQEMU(t, map[string]string{
		"info mtree -f": monitorAnswer(t, "  0000000000000000-0000000000001fff (prio 0, ram): pc.ram\n"+
			"  0000000000008000-000000000000afff (prio 0, ram): pc.ram @0000000000002000\n"),
		"info registers -a": monitorAnswer(t, pagingCPU),
		"xp /512xg 0x1000":  monitorAnswer(t, words(0)),
		"query-status":      `{"return": {"status": "running"}}`,
	}))
	if err != nil {
		t.Fatal(err)
	}
	g, err := NewGuest(ctx, q, ram)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	want := []scan.Region{{GFN: 0, Count: 2, Page: 0}, {GFN: 8, Count: 3, Page: 2}}
	if !slices.Equal(g.RAM(), want) {
		t.Errorf("RAM %v, want %v", g.RAM(), want)
	}
	if err := g.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := g.WriteAt([]byte("hello"), 0x9000-2); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := g.ReadAt(b, 0x9000-2); err != nil || !bytes.Equal(b, []byte("hello")) {
		t.Errorf("read %q, %v", b, err)
	}
	if file, _ := os.ReadFile(ram); !bytes.Equal(file[3*pageSize-2:3*pageSize+3], []byte("hello")) {
		t.Error("the bytes are not where they belong in the file")
	}
	if _, err := g.ReadAt(b, 0x2000-2); err == nil {
		t.Error("a read went on into the hole")
	}
	if cpus, err := g.CPUs(); err != nil || len(cpus) != 1 || !cpus[0].Halted {
		t.Errorf("vCPUs %+v, %v", cpus, err)
	}
	if err := g.Resume(); err != nil {
		t.Error(err)
	}
	if n, err := g.Pages(); err != nil || n != 5 {
		t.Errorf("%d pages, %v", n, err)
	}
}

// What was never written is absent, whatever its size.
func TestPresent(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "ram"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const pages = 4096
	if err := f.Truncate(pages * pageSize); err != nil {
		t.Fatal(err)
	}
	g := &Guest{File: ramfile.File{File: f}}
	if p, err := g.Present(); err != nil || p.Count() != 0 {
		t.Errorf("of nothing %d pages, %v", p.Count(), err)
	}
	for _, page := range []int64{7, 8, 2000, pages - 1} {
		if _, err := f.WriteAt(make([]byte, pageSize), page*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	p, err := g.Present()
	if err != nil {
		t.Fatal(err)
	}
	// A file system may keep more than a page together.
	if !p.Has(7) || !p.Has(8) || !p.Has(2000) || !p.Has(pages-1) || p.Count() > 200 || p.Has(1000) {
		t.Errorf("%d pages", p.Count())
	}
}
