package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/index/blob"
)

// The model of a store is a map. Whatever is done to both, they must say the same.

type modelCheckpoint struct {
	img   testImage
	files map[string][]byte
	set   []Run      // the working set, clean
	order []Run      // in which its pages are stored; nil: that of the set
	times touchTimes // of the set; nil: the store was not told
}

// sameDues compares the times of the set.
func (c *modelCheckpoint) sameDues(t *testing.T, m *Image) {
	t.Helper()
	switch _, known := m.WorkingSetFeed().(TimedFeed).Due(); {
	case c.times != nil && len(c.set) > 0:
		sameDues(t, m, c.times, true)
	case known:
		t.Fatal("times that the store was not told")
	}
}

// drawTimes gives half of the sets times.
func (m *model) drawTimes(c *modelCheckpoint) Wanted {
	if len(c.set) == 0 || m.r.IntN(2) == 0 {
		return nil
	}
	c.times = randomTimes(m.r, c.set)
	return c.times.wanted
}

type model struct {
	t     *testing.T
	r     *rand.Rand
	dir   string
	blobs blob.Store // nil: in dir
	s     *Store
	m     map[string]*modelCheckpoint
	open  []openModel
	n     int // names given out

	memory *RepackMemory // of earlier repackings, by any process
}

// openModel is an image that stays open while other things happen.
type openModel struct {
	name string
	m    *Image
	want *modelCheckpoint
}

func newModel(t *testing.T, seed uint64, blobs blob.Store, sealed bool) *model {
	m := &model{
		t: t, r: rand.New(rand.NewPCG(seed, 5)), dir: t.TempDir() + "/store", blobs: blobs,
		m: map[string]*modelCheckpoint{}, memory: NewRepackMemory(),
	}
	if sealed {
		makeSealed(t, m.dir)
	}
	m.reopen()
	return m
}

func (m *model) reopen() {
	m.closeImages()
	if m.s != nil {
		if err := m.s.Close(); err != nil {
			m.t.Fatal(err)
		}
	}
	m.s = openTest(m.t, m.dir, m.blobs)
	if m.r.IntN(2) == 0 {
		m.s.limits = limits{packPages: 200, freshPages: 150, // several packs an import
			tailPages: m.r.IntN(3) * 400}
	}
	m.s.limits.gatherPages = m.r.IntN(3) * 20
}

func (m *model) closeImages() {
	for _, o := range m.open {
		sameImage(m.t, o.m, o.want.img.bytes())
		sameWorkingSet(m.t, o.m, o.want.img.bytes(), o.want.set)
		o.want.sameDues(m.t, o.m)
		if err := o.m.Close(); err != nil {
			m.t.Fatal(err)
		}
	}
	m.open = nil
}

func (m *model) name() string {
	names := sortedKeys(m.m)
	if len(names) == 0 {
		return "none"
	}
	return names[m.r.IntN(len(names))]
}

func (m *model) isOpen(name string) bool {
	for _, o := range m.open {
		if o.name == name {
			return true
		}
	}
	return false
}

func (m *model) drawSet(pages int) []Run {
	var runs []Run
	if m.r.IntN(3) == 0 {
		// Scattered: pages of which none lies beside the one before it.
		for _, gfn := range m.r.Perm(pages)[:1+m.r.IntN(pages)] {
			runs = append(runs, Run{uint64(gfn), 1})
		}
		return runs
	}
	for range m.r.IntN(12) {
		first := m.r.IntN(pages)
		runs = append(runs, Run{uint64(first), uint64(1 + m.r.IntN(min(40, pages-first)))})
	}
	return runs
}

func (m *model) newCheckpoint() *modelCheckpoint {
	c := &modelCheckpoint{files: map[string][]byte{}}
	from := m.m[m.name()]
	switch n := m.r.IntN(8); {
	case from != nil && n >= 6:
		c.img = from.img.evolve(m.r, m.r.Float64()/2)
	case from != nil && n < 2:
		c.img = from.img.change(m.r, m.r.IntN(30))
	case from != nil && n < 4:
		c.img = from.img.changed(m.r, m.r.Float64()/2)
	case n == 4 || len(m.m) < 2:
		c.img, c.order = scattered(m.r, 1+m.r.IntN(1200))
	default:
		c.img = randomImage(m.r, 1+m.r.IntN(1200))
	}
	if m.r.IntN(2) == 0 {
		state := make([]byte, m.r.IntN(2*filePartSize))
		for i := range state {
			state[i] = byte(m.r.IntN(4))
		}
		c.files["state"] = state
	}
	if m.r.IntN(3) == 0 {
		c.files["info.json"] = fmt.Appendf(nil, "{\"n\": %d}", m.n)
	}
	return c
}

func (m *model) doImport() {
	m.n++
	// Names sort before and after those of parents, whatever came first.
	name := fmt.Sprintf("%c%d", 'a'+rune(m.r.IntN(26)), m.n)
	c := m.newCheckpoint()
	set := m.drawSet(len(c.img))
	if m.r.IntN(2) == 0 {
		set = nil
	}
	c.set, _ = cleanRuns(set, uint64(len(c.img)))
	if set != nil {
		c.files["working-set"] = []byte("set of " + name)
	}
	o := ImportOptions{Name: name, WorkingSet: set, Wanted: m.drawTimes(c)}
	if m.r.IntN(4) == 0 && len(m.m) > 0 {
		o.Name, o.Replace = m.name(), true // in place of one that there is
	}
	if c.order != nil {
		o.Order = []Group{{GroupUsed, c.order}}
	}
	src := writeSource(m.t, c.img.bytes(), c.files)
	_, _, err := m.s.Import(context.Background(), src, o)
	switch {
	case o.Replace && m.isOpen(o.Name):
		if !errors.Is(err, ErrInUse) {
			m.t.Fatalf("replace %s: %v", o.Name, err)
		}
	case err != nil:
		m.t.Fatal(err)
	default:
		m.m[o.Name] = c
	}
}

// doRename renames a checkpoint, half of the times to a name that is taken.
func (m *model) doRename() {
	m.n++
	from, to := m.name(), fmt.Sprintf("%c%d", 'a'+rune(m.r.IntN(26)), m.n)
	if m.r.IntN(2) == 0 {
		to = m.name()
	}
	_, err := m.s.Rename(context.Background(), from, to)
	switch {
	case m.m[from] == nil:
		if !errors.Is(err, ErrNotFound) {
			m.t.Fatalf("rename %s: %v", from, err)
		}
	case m.m[to] != nil:
		if !errors.Is(err, ErrExists) {
			m.t.Fatalf("rename %s to %s: %v", from, to, err)
		}
	case m.isOpen(from):
		if !errors.Is(err, ErrInUse) {
			m.t.Fatalf("rename %s: %v", from, err)
		}
	case err != nil:
		m.t.Fatal(err)
	default:
		m.m[to] = m.m[from]
		delete(m.m, from)
	}
}

func (m *model) doRemove() {
	name := m.name()
	err := m.s.Remove(context.Background(), name)
	switch {
	case m.m[name] == nil:
		if !errors.Is(err, ErrNotFound) {
			m.t.Fatalf("remove %s: %v", name, err)
		}
	case m.isOpen(name):
		if !errors.Is(err, ErrInUse) {
			m.t.Fatalf("remove %s: %v", name, err)
		}
	case err != nil:
		m.t.Fatal(err)
	default:
		delete(m.m, name)
	}
}

func (m *model) doSetWorkingSet() {
	name := m.name()
	c := m.m[name]
	if c == nil {
		return
	}
	set := m.drawSet(len(c.img))
	text := fmt.Appendf(nil, "another set %d", m.r.Uint64())
	if len(set) == 0 {
		text = nil
	}
	next := &modelCheckpoint{img: c.img, files: map[string][]byte{}}
	next.set, _ = cleanRuns(set, uint64(len(c.img)))
	before := m.checkpoint(name)
	after, err := m.s.SetTimedWorkingSet(context.Background(), name, text, set, m.drawTimes(next))
	if err != nil {
		m.t.Fatal(err)
	}
	if after.ID != before.ID || after.Generation != before.Generation+1 {
		m.t.Fatalf("%+v became %+v", before, after)
	}
	for f, b := range c.files {
		next.files[f] = b
	}
	delete(next.files, "working-set")
	if text != nil {
		next.files["working-set"] = text
	}
	m.m[name] = next
}

func (m *model) checkpoint(name string) Checkpoint {
	list, err := m.s.List(context.Background())
	if err != nil {
		m.t.Fatal(err)
	}
	for _, c := range list {
		if c.Name == name {
			return c
		}
	}
	m.t.Fatalf("%s is not listed", name)
	return Checkpoint{}
}

func (m *model) doGC() {
	if _, err := m.s.GC(context.Background(), GCOptions{}); err != nil {
		m.t.Fatal(err)
	}
}

// seenOf makes up what machines have asked for: always the same of one checkpoint.
func seenOf(c Checkpoint) (runs []Run) {
	sum, _ := strconv.ParseUint(c.ID[:8], 16, 64)
	r := rand.New(rand.NewPCG(sum, 6))
	pages := uint64(c.MemoryBytes / PageSize)
	for range r.IntN(4) {
		runs = append(runs, Run{r.Uint64N(pages), 1 + r.Uint64N(30)}) // perhaps beyond the end
	}
	return runs
}

// doRepack repacks all, some packs, or those of one checkpoint. A second time there is nothing to do.
func (m *model) doRepack() {
	ctx := context.Background()
	o := RepackOptions{Seen: seenOf, Most: m.r.IntN(3)}
	if m.r.IntN(2) == 0 {
		o.Memory = m.memory
	}
	if name := m.name(); m.m[name] != nil && m.r.IntN(4) == 0 {
		o.Names, o.Own = []string{name}, m.r.IntN(2) == 0
	}
	dry := o
	dry.DryRun, dry.Memory = true, nil
	would, err := m.s.Repack(ctx, dry)
	if err != nil {
		m.t.Fatal(err)
	}
	did, err := m.s.Repack(ctx, o)
	gathers := would.GatheredPages > 0 || did.GatheredPages > 0 // and repacks what is there then
	if err != nil || !gathers && (did.Repacked > would.Repacked ||
		o.Memory == nil && did.Repacked != would.Repacked) {
		m.t.Fatalf("%+v, %v; a dry run said %+v", did, err, would)
	}
	if o.Most > 0 {
		return
	}
	if (did.GatheredPages > 0) != (would.GatheredPages > 0) {
		m.t.Fatalf("%+v; a dry run said %+v", did, would)
	}
	again, err := m.s.Repack(ctx, RepackOptions{Names: o.Names, Own: o.Own, Seen: seenOf})
	if err != nil || again.Repacked != 0 {
		m.t.Fatalf("a second time %+v, %v; the first time %+v", again, err, did)
	}
}

func (m *model) doOpen() {
	name := m.name()
	if c := m.m[name]; c != nil && len(m.open) < 4 {
		m.open = append(m.open, openModel{name, openImage(m.t, m.s, name), c})
	}
}

func (m *model) doLoseIndex() {
	m.closeImages()
	if err := m.s.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.s = nil
	if err := os.RemoveAll(filepath.Join(m.dir, indexDirName)); err != nil {
		m.t.Fatal(err)
	}
	m.reopen()
}

func (m *model) doRebuild() {
	rep, err := m.s.Check(context.Background(), CheckOptions{Rebuild: true})
	if err != nil || !rep.OK() || !rep.Rebuilt {
		m.t.Fatalf("%+v, %v", rep, err)
	}
}

// verify compares everything.
func (m *model) verify() {
	m.t.Helper()
	list, err := m.s.List(context.Background())
	if err != nil {
		m.t.Fatal(err)
	}
	var names []string
	for _, c := range list {
		names = append(names, c.Name)
	}
	if d := cmp.Diff(sortedKeys(m.m), names); d != "" {
		m.t.Fatal(d)
	}
	for name, c := range m.m {
		img := openImage(m.t, m.s, name)
		want := c.img.bytes()
		sameImage(m.t, img, want)
		sameWorkingSet(m.t, img, want, c.set)
		c.sameDues(m.t, img)
		img.Close()
		for f, b := range c.files {
			got, err := m.s.ReadFile(context.Background(), name, f)
			if err != nil || !bytes.Equal(got, b) {
				m.t.Fatalf("%s/%s: %v", name, f, err)
			}
		}
	}
	for _, o := range m.open {
		sameImage(m.t, o.m, o.want.img.bytes())
	}
	checkClean(m.t, m.s, true)
}

func (m *model) step() {
	switch n := m.r.IntN(27); {
	case n >= 25:
		m.doRename()
	case n >= 22:
		m.doRepack()
	case n >= 20:
		m.doRetier()
	case n < 7:
		m.doImport()
	case n < 10:
		m.doRemove()
	case n < 12:
		m.doGC()
	case n < 15:
		m.doSetWorkingSet()
	case n < 17:
		m.doOpen()
	case n < 18:
		m.reopen()
	case n < 19:
		m.doLoseIndex()
	default:
		m.doRebuild()
	}
}

func TestModel(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t, seed, nil, seed >= 6)
			defer func() { m.s.Close() }()
			for range 25 {
				m.step()
			}
			m.verify()
			m.reopen()
			m.verify()
			for _, name := range sortedKeys(m.m) {
				if err := m.s.Remove(context.Background(), name); err != nil {
					t.Fatal(err)
				}
			}
			m.doGC()
			if left := blobFiles(t, m.dir); len(left) != 0 {
				t.Errorf("left of an empty store: %v", left)
			}
		})
	}
}
