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
	"testing"
	"time"

	"github.com/thawfs/thaw/index/blob/crashfs"
)

var (
	rigCrashes = flag.Int("crashes", 250, "how often the crash rig pulls the plug")
	rigSeed    = flag.Uint64("seed", 0, "what the crash rig's dice begin with; 0: something new")
)

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
	doubt doubt
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
	hot   []Run  // clean
}

// doubt is a checkpoint that something is being done to: it is as before, or as after. Nil: none.
type doubt struct {
	name          string // "": there is no doubt
	before, after *rigCheckpoint
}

func newRig(t *testing.T, seed uint64, badger bool) *rig {
	r := rand.New(rand.NewPCG(seed, 77))
	dir := t.TempDir()
	g := &rig{
		t: t, r: r, dir: dir, files: crashfs.New(r.Uint64()), have: map[string]*rigCheckpoint{},
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
			Create: true, Blobs: blobs, Log: testLog(g.t),
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
		g.s.limits = limits{packPages: 64, freshPages: 50} // several packs an import
	}
	return true
}

// crash ends what is left of the process, and the machine too as often as not.
func (g *rig) crash() {
	g.count.crashes++
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
	for !g.files.Crashed() {
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

// step does one thing.
func (g *rig) step() {
	var err error
	switch n := g.r.IntN(20); {
	case n < 8 && len(g.have) < 10:
		err = g.doImport()
	case n < 11:
		err = g.doRemove()
	case n < 14:
		err = g.doSetWorkingSet()
	case n < 18:
		g.note("gc")
		_, err = g.s.GC(context.Background(), GCOptions{})
	case n < 19:
		g.note("rebuild")
		_, err = g.s.Check(context.Background(), CheckOptions{Rebuild: true})
	default:
		g.note("close and open")
		err = g.s.Close()
		g.s = nil
		if err == nil && !g.open() {
			return
		}
	}
	if err != nil && !g.files.Crashed() {
		g.fatalf("%v", err)
	}
	if err == nil {
		g.settle()
	}
}

// settle ends the doubt: what was being done is done.
func (g *rig) settle() {
	d := g.doubt
	g.doubt = doubt{}
	if d.name == "" {
		return
	}
	if d.after == nil {
		delete(g.have, d.name)
	} else {
		g.have[d.name] = d.after
	}
}

func (g *rig) doImport() error {
	g.n++
	name := fmt.Sprintf("n%02d", g.r.IntN(30)) // in no order, and often one that was there
	if g.have[name] != nil {
		return nil
	}
	c := g.newCheckpoint()
	g.note("import %s: %d pages, %d runs in the set", name, len(c.pages), len(c.hot))
	g.doubt = doubt{name: name, after: c}
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
	_, _, err := g.s.Import(context.Background(), src, ImportOptions{Name: name, Hot: c.hot})
	return err
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
	c.hot, c.text = nil, ""
	n := len(c.pages)
	switch r.IntN(5) {
	case 0:
		return
	case 1: // all of it, in no order
		for _, i := range r.Perm(n) {
			c.hot = append(c.hot, Run{uint64(i), 1})
		}
	default:
		for range 1 + r.IntN(10) {
			first := r.IntN(n)
			c.hot = append(c.hot, Run{uint64(first), uint64(1 + r.IntN(min(40, n-first)))})
		}
	}
	c.hot, _ = cleanRuns(c.hot, uint64(n))
	c.text = fmt.Sprint("set ", r.Uint64())
}

// name gives one of the checkpoints; "none" if there is none.
func (g *rig) name() string {
	names := sortedKeys(g.have)
	if len(names) == 0 {
		return "none"
	}
	return names[g.r.IntN(len(names))]
}

func (g *rig) doRemove() error {
	name := g.name()
	if g.have[name] == nil {
		return nil
	}
	g.note("remove %s", name)
	g.doubt = doubt{name: name, before: g.have[name]}
	return g.s.Remove(context.Background(), name)
}

func (g *rig) doSetWorkingSet() error {
	name := g.name()
	before := g.have[name]
	if before == nil {
		return nil
	}
	after := *before
	after.set(g.r)
	g.note("set %s: %d runs", name, len(after.hot))
	g.doubt = doubt{name: name, before: before, after: &after}
	_, err := g.s.SetWorkingSet(context.Background(), name, []byte(after.text), after.hot)
	return err
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
	d := g.doubt
	g.doubt = doubt{}
	for name, c := range g.have {
		if name != d.name && !found[name] {
			g.fatalf("%s is lost", name)
		}
		if name != d.name {
			g.same(name, c)
		}
	}
	for name := range found {
		if g.have[name] == nil && name != d.name {
			g.fatalf("%s came back", name)
		}
	}
	if d.name != "" {
		delete(g.have, d.name)
		if c := g.which(d, found[d.name]); c != nil {
			g.have[d.name] = c
			g.same(d.name, c)
		}
	}
	rep, err := g.s.Check(context.Background(), CheckOptions{ReadData: true})
	if err != nil || !rep.OK() {
		g.fatalf("check: %+v, %v", rep, err)
	}
}

// which says what a checkpoint is that was in doubt.
func (g *rig) which(d doubt, found bool) *rigCheckpoint {
	switch {
	case !found && d.before != nil && d.after != nil:
		g.fatalf("%s is lost while its set was replaced", d.name)
	case !found:
		return nil
	case d.before == nil:
		return d.after
	case d.after == nil:
		return d.before
	}
	text, err := g.s.ReadFile(context.Background(), d.name, fileWorkingSet)
	if err != nil && !errors.Is(err, ErrNotFound) {
		g.fatalf("%s: %v", d.name, err)
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
	if !slices.Equal(m.WorkingSet(), want.hot) {
		g.fatalf("%s: the set is %v, want %v", name, m.WorkingSet(), want.hot)
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

// differing gives the pages that differ.
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
	seed := *rigSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	if testing.Short() {
		crashes = crashes/4 + 1
	}
	start := time.Now()
	g := newRig(t, seed, badger)
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
