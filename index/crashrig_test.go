package index

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/blobtest/crashfs"
)

var rigCrashes = flag.Int("crashes", 250, "how many crashes the crash rig makes")

// The crash rig is a store on a file system that loses power (package crashfs) and with an index
// that is some earlier one after it. At any step of import, removal, setting of a working set,
// collection, check and opening the process ends. The next one must find each checkpoint whose
// import had returned, none whose removal had, and of what was being done all or nothing.
type rig struct {
	t     *testing.T
	r     *rand.Rand
	dir   string // what is not blobs: the store's file, its lock, the index
	files *crashfs.FS
	index rigIndex
	s     *Store
	have  map[string]*rigCheckpoint
	doubt map[string]doubt // by name
	held  []rigImage
	n     int // checkpoints made
	count struct{ crashes, double, opens, steps, cuts int }
	log   []string
}

// rigCheckpoint is what the model knows of a checkpoint.
type rigCheckpoint struct {
	pages testImage
	bytes []byte
	state []byte // nil: no such file
	text  string // of the working set
	ws    []Run  // the working set, clean
}

// doubt is a checkpoint that something is being done to: it is as before, or as after. Nil: none.
type doubt struct{ before, after *rigCheckpoint }

// rigImage is an image that is open while other things happen.
type rigImage struct {
	name string
	m    *Image
	want *rigCheckpoint
}

func newRig(t *testing.T, badger bool) *rig {
	r := newRand(t)
	dir := t.TempDir()
	g := &rig{
		t: t, r: r, dir: dir, files: crashfs.New(r.Uint64()), have: map[string]*rigCheckpoint{},
		doubt: map[string]doubt{},
	}
	if r.IntN(2) == 0 { // half of all lives
		g.note("the store is sealed")
		makeSealed(t, dir)
	}
	g.index = newRigKeys(r)
	if badger {
		g.index = newRigBadger(t, r, filepath.Join(dir, indexDirName))
	}
	g.open()
	return g
}

func (g *rig) fatalf(format string, args ...any) {
	g.t.Helper()
	g.t.Fatalf("%s\nafter %d crashes, %d steps; the last:\n%s", fmt.Sprintf(format, args...),
		g.count.crashes, g.count.steps, lastLines(g.log, 40))
}

func lastLines(lines []string, n int) string {
	var b bytes.Buffer
	for _, l := range lines[max(0, len(lines)-n):] {
		fmt.Fprintln(&b, " ", l)
	}
	return b.String()
}

func (g *rig) note(format string, args ...any) {
	g.log = append(g.log, fmt.Sprintf(format, args...))
}

// open opens the store; it fails only if the machine dies meanwhile.
func (g *rig) open() (ok bool) {
	g.count.opens++
	blobs, err := g.files.Store()
	if err == nil {
		g.s, err = Open(context.Background(), g.dir, OpenOptions{
			Create: true, Blobs: blobs, Log: testLog(g.t), Keys: keysFor(g.dir),
		})
	}
	if err != nil {
		if !g.files.Crashed() {
			g.fatalf("open: %v", err)
		}
		return false
	}
	g.index.use(g.s)
	if g.r.IntN(2) == 0 {
		g.s.limits = limits{packPages: 64, freshPages: 50, // several packs an import
			tailPages: g.r.IntN(3) * 200}
	}
	g.s.limits.gatherPages, g.s.limits.gatherPart = g.r.IntN(2)*10, g.r.Uint32N(3)*20
	return true
}

// crash ends what is left of the process, and the machine too as often as not.
func (g *rig) crash() {
	g.count.crashes++
	for _, i := range g.held {
		i.m.Close()
	}
	g.held = nil
	if g.s != nil {
		_ = g.s.Close() // it is not there any more; only its goroutines and locks are
		g.s = nil
	}
	what := g.index.crash()
	if g.r.IntN(3) == 0 {
		g.note("killed; %s", what)
		g.files.Kill()
		return
	}
	g.count.cuts++
	g.note("power cut; %s", what)
	g.files.PowerCut()
}

// round works until the machine dies, and looks at what is left.
func (g *rig) round() {
	// Some imports have hundreds of steps, a removal two.
	g.crashIn([...]int{3, 15, 50, 150}[g.r.IntN(4)])
	for !g.files.Crashed() && g.s != nil {
		g.step()
		g.count.steps++
		if g.r.IntN(8) == 0 {
			g.index.copy()
		}
	}
	g.crash()
	for g.r.IntN(3) == 0 {
		g.crashIn(12)
		if g.open() && !g.files.Crashed() {
			// It came to no such step: it dies now, in the middle of nothing.
			g.note("opened")
		}
		g.count.double++
		g.crash()
	}
	if !g.open() {
		g.fatalf("the machine is off")
	}
	g.verify()
}

func (g *rig) crashIn(most int) {
	g.files.CrashIn(1+g.r.IntN(most), g.index.atCrash)
}

// rigDeed is something to be done: what it makes of a checkpoint, if it works.
type rigDeed struct {
	do   func() error
	name string // "": it changes none
	doubt
}

// step does one thing, and sometimes a removal at the same time.
func (g *rig) step() {
	deeds := []rigDeed{g.deed()}
	if g.s == nil {
		return // it died when it was opened
	}
	if g.r.IntN(6) == 0 {
		deeds = append(deeds, g.remove())
	}
	if len(deeds) == 2 && deeds[0].name == deeds[1].name && deeds[0].name != "" {
		deeds = deeds[:1]
	}
	failed := make([]error, len(deeds))
	var wg sync.WaitGroup
	for i, d := range deeds {
		if d.do == nil {
			continue
		}
		if d.name != "" {
			g.doubt[d.name] = d.doubt
		}
		wg.Go(func() { failed[i] = d.do() })
	}
	wg.Wait()
	for i, d := range deeds {
		switch {
		case failed[i] == nil:
			g.settle(d.name)
		case g.files.Crashed():
		case i == 1 && errors.Is(failed[i], ErrInUse):
			delete(g.doubt, d.name) // what is imported at the same time is compared with it
		default:
			g.fatalf("%v", failed[i])
		}
	}
	if g.s != nil {
		g.holdAndRelease()
	}
}

func (g *rig) deed() rigDeed {
	ctx := context.Background()
	switch n := g.r.IntN(23); {
	case n < 8 && len(g.have) < 10:
		return g.imports()
	case n < 11:
		return g.remove()
	case n < 14:
		return g.setWorkingSet()
	case n < 15:
		seed := g.r.Uint32N(100)
		g.note("write packs again, tiers %d", seed)
		return rigDeed{do: func() error {
			return tryRetier(g.s, func(number uint64) bool { return (number+uint64(seed))%3 == 0 }, mixed(seed))
		}}
	case n < 18:
		g.note("gc")
		return rigDeed{do: func() error {
			_, err := g.s.GC(ctx, GCOptions{})
			return err
		}}
	case n < 21:
		most := g.r.IntN(3)
		g.note("repack %d packs", most)
		return rigDeed{do: func() error {
			_, err := g.s.Repack(ctx, RepackOptions{Seen: seenOf, Most: most})
			return err
		}}
	case n < 22:
		repair := g.r.IntN(2) == 0
		g.note("check; repair: %v", repair)
		return rigDeed{do: func() error {
			_, err := g.s.Check(ctx, CheckOptions{Rebuild: !repair, Repair: repair})
			return err
		}}
	}
	if len(g.held) > 0 || g.r.IntN(2) == 0 {
		return rigDeed{}
	}
	g.note("close and open")
	if err := g.s.Close(); err != nil && !g.files.Crashed() {
		g.fatalf("%v", err)
	}
	g.s = nil
	g.open()
	return rigDeed{}
}

// settle ends a doubt: what was being done is done.
func (g *rig) settle(name string) {
	d, ok := g.doubt[name]
	if !ok {
		return
	}
	delete(g.doubt, name)
	delete(g.have, name)
	if d.after != nil {
		g.have[name] = d.after
	}
}

// holdAndRelease opens an image, or looks at one that is open since some steps and closes it.
func (g *rig) holdAndRelease() {
	name := g.name()
	switch {
	case g.r.IntN(4) > 0 || g.files.Crashed():
	case len(g.held) > 2:
		i := g.held[0]
		g.held = g.held[1:]
		got := make([]byte, len(i.want.bytes))
		err := i.m.ReadRange(0, got)
		i.m.Close()
		if !g.files.Crashed() && (err != nil || !bytes.Equal(got, i.want.bytes)) {
			g.fatalf("%s, open since long, differs: %v", i.name, err)
		}
	case g.have[name] != nil:
		m, err := g.s.OpenImage(context.Background(), name)
		if err != nil && !g.files.Crashed() {
			g.fatalf("%v", err)
		}
		if err == nil {
			g.held = append(g.held, rigImage{name, m, g.have[name]})
		}
	}
}

func (g *rig) isHeld(name string) bool {
	return slices.ContainsFunc(g.held, func(i rigImage) bool { return i.name == name })
}

func (g *rig) imports() rigDeed {
	g.n++
	name := fmt.Sprintf("n%02d", g.r.IntN(30)) // in no order, and often one that was there
	if g.have[name] != nil {
		return rigDeed{}
	}
	c := g.newCheckpoint()
	g.note("import %s: %d pages, %d runs in the set", name, len(c.pages), len(c.ws))
	src := Source{Memory: "rig", Image: rigMemory{c.bytes}, Files: map[string]string{}}
	file := func(name string, b []byte) {
		src.Files[name] = filepath.Join(g.dir, "source-"+name)
		if err := os.WriteFile(src.Files[name], b, 0o600); err != nil {
			g.t.Fatal(err)
		}
	}
	if c.state != nil {
		file("state", c.state)
	}
	if c.text != "" {
		file(fileWorkingSet, []byte(c.text))
	}
	if len(c.ws) == 0 && g.r.IntN(2) == 0 {
		src.Image, src.Stream = nil, &testStream{r: g.r, image: c.bytes}
	}
	return rigDeed{name: name, doubt: doubt{after: c}, do: func() error {
		_, _, err := g.s.Import(context.Background(), src, ImportOptions{Name: name, WorkingSet: c.ws})
		return err
	}}
}

// newCheckpoint makes a fresh image, or one like another.
func (g *rig) newCheckpoint() *rigCheckpoint {
	c := &rigCheckpoint{}
	from := g.have[g.name()]
	switch {
	case from == nil || g.r.IntN(3) == 0:
		most := [...]int{10, 40, 150}[g.r.IntN(3)]
		if g.r.IntN(15) == 0 {
			most = 1100
		}
		c.pages = randomImage(g.r, 1+g.r.IntN(most))
	case g.r.IntN(3) == 0: // most of it
		c.pages = from.pages.change(g.r, len(from.pages)/5)
	case g.r.IntN(2) == 0: // versions of pages
		c.pages = from.pages.evolve(g.r, g.r.Float64())
	default:
		c.pages = from.pages.change(g.r, g.r.IntN(10))
	}
	c.bytes = c.pages.bytes()
	if g.r.IntN(3) == 0 {
		c.state = make([]byte, g.r.IntN([...]int{100, 2 * filePartSize}[g.r.IntN(2)]))
		for i := range c.state {
			c.state[i] = byte(g.r.IntN(3))
		}
	}
	c.set(g.r)
	return c
}

// set gives a checkpoint another working set, or none.
func (c *rigCheckpoint) set(r *rand.Rand) {
	c.ws, c.text = nil, ""
	n := len(c.pages)
	switch r.IntN(5) {
	case 0:
		return
	case 1: // all of it, in no order
		for _, i := range r.Perm(n) {
			c.ws = append(c.ws, Run{uint64(i), 1})
		}
	default:
		for range 1 + r.IntN(10) {
			first := r.IntN(n)
			c.ws = append(c.ws, Run{uint64(first), uint64(1 + r.IntN(min(40, n-first)))})
		}
	}
	c.ws, _ = cleanRuns(c.ws, uint64(n))
	c.text = fmt.Sprint("set ", r.Uint64())
}

// name returns one of the checkpoints; "none" if there is none.
func (g *rig) name() string {
	names := sortedKeys(g.have)
	if len(names) == 0 {
		return "none"
	}
	return names[g.r.IntN(len(names))]
}

func (g *rig) remove() rigDeed {
	name := g.name()
	if g.have[name] == nil || g.isHeld(name) {
		return rigDeed{}
	}
	g.note("remove %s", name)
	return rigDeed{name: name, doubt: doubt{before: g.have[name]}, do: func() error {
		return g.s.Remove(context.Background(), name)
	}}
}

func (g *rig) setWorkingSet() rigDeed {
	name := g.name()
	before := g.have[name]
	if before == nil {
		return rigDeed{}
	}
	after := *before
	after.set(g.r)
	g.note("set %s: %d runs", name, len(after.ws))
	return rigDeed{name: name, doubt: doubt{before, &after}, do: func() error {
		_, err := g.s.SetWorkingSet(context.Background(), name, []byte(after.text), after.ws)
		return err
	}}
}

// verify compares all that is there with the model, and takes what it finds where there was doubt.
func (g *rig) verify() {
	list, err := g.s.List(context.Background())
	if err != nil {
		g.fatalf("%v", err)
	}
	found := map[string]bool{}
	for _, c := range list {
		found[c.Name] = true
	}
	for name, d := range g.doubt {
		delete(g.have, name)
		if c := g.which(name, d, found[name]); c != nil {
			g.have[name] = c
		}
		delete(g.doubt, name)
	}
	for name, c := range g.have {
		if !found[name] {
			g.fatalf("%s is lost", name)
		}
		g.same(name, c)
	}
	for name := range found {
		if g.have[name] == nil {
			g.fatalf("%s came back", name)
		}
	}
	rep, err := g.s.Check(context.Background(), CheckOptions{ReadData: true})
	if err != nil || !rep.OK() {
		g.fatalf("check: %+v, %v", rep, err)
	}
}

// which says what a checkpoint is that was in doubt.
func (g *rig) which(name string, d doubt, found bool) *rigCheckpoint {
	switch {
	case !found && d.before != nil && d.after != nil:
		g.fatalf("%s is lost while its set was replaced", name)
	case !found:
		return nil
	case d.before == nil:
		return d.after
	case d.after == nil:
		return d.before
	}
	text, err := g.s.ReadFile(context.Background(), name, fileWorkingSet)
	if err != nil && !errors.Is(err, ErrNotFound) {
		g.fatalf("%s: %v", name, err)
	}
	if string(text) == d.after.text {
		return d.after
	}
	return d.before
}

// same compares a checkpoint with what it must be.
func (g *rig) same(name string, want *rigCheckpoint) {
	ctx := context.Background()
	m, err := g.s.OpenImage(ctx, name)
	if err != nil {
		g.fatalf("%v", err)
	}
	defer m.Close()
	got := make([]byte, len(want.bytes))
	if m.Size() != int64(len(want.bytes)) {
		g.fatalf("%s has %d bytes, want %d", name, m.Size(), len(want.bytes))
	}
	if err := m.ReadRange(0, got); err != nil || !bytes.Equal(got, want.bytes) {
		g.fatalf("%s differs: %v; of %d pages these: %v", name, err, len(want.pages),
			differing(got, want.bytes))
	}
	if !slices.Equal(m.WorkingSet(), want.ws) {
		g.fatalf("%s: the set is %v, want %v", name, m.WorkingSet(), want.ws)
	}
	var p Piece
	for feed, i := m.WorkingSetFeed(), 0; i < feed.Len(); i++ {
		if err := ReadPiece(ctx, feed, i, &p); err != nil {
			g.fatalf("%s: the set's pages: %v", name, err)
		}
		for k, gfn := range p.GFNs {
			if !bytes.Equal(p.Pages[k*PageSize:][:PageSize], want.bytes[gfn*PageSize:][:PageSize]) {
				g.fatalf("%s: page %d of the set differs", name, gfn)
			}
		}
	}
	for file, b := range map[string][]byte{"state": want.state, fileWorkingSet: []byte(want.text)} {
		got, err := g.s.ReadFile(ctx, name, file)
		if len(b) == 0 && (errors.Is(err, ErrNotFound) || err == nil && len(got) == 0) {
			continue
		}
		if err != nil || !bytes.Equal(got, b) {
			g.fatalf("%s/%s differs: %v", name, file, err)
		}
	}
}

// differing returns the pages that differ.
func differing(got, want []byte) (gfns []int) {
	for i := 0; i < len(want); i += PageSize {
		if !bytes.Equal(got[i:i+PageSize], want[i:i+PageSize]) {
			gfns = append(gfns, i/PageSize)
		}
	}
	return gfns
}

// rigMemory is an image in RAM.
type rigMemory struct{ b []byte }

func (m rigMemory) ReadAt(p []byte, off int64) (int, error) { return copy(p, m.b[off:]), nil }
func (m rigMemory) Size() int64                             { return int64(len(m.b)) }
func (m rigMemory) Extents() ([]Run, error) {
	return []Run{{0, uint64(len(m.b)) / PageSize}}, nil
}

// TestCrashRig lives through crashes; `go test ./index -run CrashRig$ -crashes 10000` through many.
func TestCrashRig(t *testing.T) { crashRig(t, *rigCrashes, false) }

// TestCrashRigBadger lives through some with Badger.
func TestCrashRigBadger(t *testing.T) { crashRig(t, *rigCrashes/10, true) }

func crashRig(t *testing.T, crashes int, badger bool) {
	crashes = fewer(crashes, crashes/4+1)
	start := time.Now()
	g := newRig(t, badger)
	defer func() {
		if g.s != nil {
			_ = g.s.Close() // after a failure nobody else does
		}
	}()
	for g.count.crashes < crashes {
		g.round()
	}
	t.Logf("%d crashes in %v: %d power cuts, %d while opening; %d checkpoints made, %d steps, %d opens",
		g.count.crashes, time.Since(start).Round(time.Millisecond), g.count.cuts, g.count.double, g.n,
		g.count.steps, g.count.opens)
}
