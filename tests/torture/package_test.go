package torture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/seal"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
)

// packageLife is a life through package index.
type packageLife struct {
	*life
	dir    string // the store
	s      *index.Store
	keys   index.KeySource // not nil: the store is sealed
	blobs  *errblob.Store  // between the store and its directory
	open   []openImage
	copies []string // of the index directory
	n      int
	memory *index.RepackMemory // of what repacks found out, by any process
}

// openImage stays open while other things happen.
type openImage struct {
	name string
	m    *index.Image
	want *checkpoint
}

func newPackageLife(t *testing.T, share float64) *packageLife {
	l := &packageLife{life: newLife(t, share, 1600), dir: filepath.Join(t.TempDir(), "store")}
	if l.r.IntN(2) == 0 {
		l.note("seal", "")
		k := seal.NewKey()
		l.keys = func(context.Context) (*seal.Key, error) { return &k, nil }
	}
	l.openStore()
	t.Cleanup(func() {
		for _, o := range l.open {
			o.m.Close()
		}
		if l.s != nil {
			l.s.Close()
		}
	})
	return l
}

func (l *packageLife) fatalf(format string, args ...any) {
	l.t.Helper()
	l.t.Fatalf("step %d: %s", l.steps, fmt.Sprintf(format, args...))
}

func (l *packageLife) must(err error) {
	l.t.Helper()
	if err != nil {
		l.fatalf("%v", err)
	}
}

func (l *packageLife) openStore() {
	s, err := index.Open(context.Background(), l.dir, index.OpenOptions{
		Create: true, Keeper: keeper, Keys: l.keys,
		Log: slog.New(slog.NewTextHandler(logWriter{l.life}, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Wrap: func(_ context.Context, s blob.Store) (blob.Store, error) {
			l.blobs = errblob.New(s, nil)
			return l.blobs, nil
		},
	})
	l.must(err)
	l.s = s
}

// logWriter writes the store's messages into the log.
type logWriter struct{ l *life }

func (w logWriter) Write(b []byte) (int, error) {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	w.l.log = append(w.l.log, "     | "+string(bytes.TrimSpace(b)))
	return len(b), nil
}

func (l *packageLife) closeStore() {
	l.closeImages()
	l.must(l.s.Close())
	l.s = nil
}

func (l *packageLife) closeImages() {
	for _, o := range l.open {
		if err := readWhole(l.r, o.m, o.want, sound); err != nil {
			l.fatalf("%s, open since long: %v", o.name, err)
		}
		l.must(o.m.Close())
	}
	l.open = nil
}

func (l *packageLife) isOpen(name string) bool {
	return slices.ContainsFunc(l.open, func(o openImage) bool { return o.name == name })
}

func (l *packageLife) step() {
	switch n := l.r.IntN(27); {
	case n >= 24:
		l.change(l.repacks)
	case n < 8:
		l.change(l.imports)
	case n < 11:
		l.change(l.removes)
	case n < 14:
		l.change(l.sets)
	case n < 18:
		l.change(l.collects)
	case n < 20:
		l.opens()
	case n < 21:
		l.note("close", "")
		l.closeStore()
		l.openStore()
	case n < 23:
		l.losesIndex()
	default:
		l.note("rebuild", "")
		rep, err := l.s.Check(context.Background(), index.CheckOptions{Rebuild: true})
		if err != nil || !rep.OK() {
			l.fatalf("rebuild: %+v, %v", rep, err)
		}
	}
}

// deed is something that changes the model, if it works: name is after instead of before then.
type deed struct {
	do    func() error
	name  string
	after *checkpoint
}

// change does a deed, sometimes with a blob operation that fails. Then all is as before or as after,
// and the same store goes on.
func (l *packageLife) change(plan func() *deed) {
	d := plan()
	if d == nil {
		return
	}
	fail := l.r.IntN(3) == 0
	if fail {
		at := l.blobs.Operations() + 1 + l.r.IntN(60)
		l.blobs.SetPlan(errblob.FailNth(at, errblob.ErrInjected))
	}
	err := d.do()
	l.blobs.SetPlan(nil)
	switch {
	case err == nil:
		l.settle(d)
	case fail && errors.Is(err, errblob.ErrInjected):
		l.tally["failed operations"]++
		l.also("%v", err)
		l.find(d)
	default:
		l.fatalf("%v", err)
	}
}

func (l *packageLife) settle(d *deed) {
	if d.name == "" {
		return
	}
	delete(l.have, d.name)
	if d.after != nil {
		l.have[d.name] = d.after
	}
}

// find finds out what a failed step has done.
func (l *packageLife) find(d *deed) {
	if d.name == "" {
		return
	}
	list, err := l.s.List(context.Background())
	l.must(err)
	there := slices.ContainsFunc(list, func(c index.Checkpoint) bool { return c.Name == d.name })
	before := l.have[d.name]
	if there != (before != nil) {
		if there != (d.after != nil) {
			l.fatalf("%s: it is there: %v, after something that failed", d.name, there)
		}
		l.settle(d)
		return
	}
	if before != nil && d.after != nil {
		text, err := l.s.ReadFile(context.Background(), d.name, setFile)
		if err != nil && !errors.Is(err, index.ErrNotFound) {
			l.must(err)
		}
		if bytes.Equal(text, d.after.files[setFile]) {
			l.settle(d)
		}
	}
}

func (l *packageLife) imports() *deed {
	if len(l.have) >= 9 {
		return l.removes()
	}
	name := l.newName()
	c, what := l.newCheckpoint()
	l.note("import", "%s: %s", name, what)
	l.n++
	dir := filepath.Join(filepath.Dir(l.dir), fmt.Sprint("source-", l.n))
	l.must(c.writeSource(dir))
	src, err := index.OpenSource(dir)
	l.must(err)
	o := index.ImportOptions{Name: name, WorkingSet: c.set, Order: drawOrder(l.r, c)}
	return &deed{name: name, after: c, do: func() error {
		_, _, err := l.s.Import(context.Background(), src, o)
		return errors.Join(err, os.RemoveAll(dir))
	}}
}

// drawOrder draws groups of pages to be stored together; nil for what is usual.
func drawOrder(r *rand.Rand, c *checkpoint) (order []index.Group) {
	if r.IntN(3) > 0 {
		return nil
	}
	for range 1 + r.IntN(4) {
		runs, _ := drawSet(r, len(c.pages))
		kind := index.GroupUsed
		if r.IntN(2) == 0 {
			kind = index.GroupVirtual
		}
		order = append(order, index.Group{Kind: kind, Runs: runs})
	}
	return order
}

func (l *packageLife) removes() *deed {
	name := l.anyName()
	if name == "" {
		return nil
	}
	l.note("remove", "%s", name)
	if l.isOpen(name) {
		if err := l.s.Remove(context.Background(), name); !errors.Is(err, index.ErrInUse) {
			l.fatalf("remove of an open one: %v", err)
		}
		return nil
	}
	return &deed{name: name, do: func() error { return l.s.Remove(context.Background(), name) }}
}

func (l *packageLife) sets() *deed {
	name := l.anyName()
	if name == "" {
		return nil
	}
	after, shape := l.have[name].withSet(l.r)
	l.note("set", "%s: %s", name, shape)
	return &deed{name: name, after: after, do: func() error {
		_, err := l.s.SetWorkingSet(context.Background(), name, after.files[setFile], after.set)
		return err
	}}
}

func (l *packageLife) collects() *deed {
	l.note("gc", "")
	return &deed{do: func() error {
		rep, err := l.s.GC(context.Background(), index.GCOptions{})
		l.also("%d packs, %d pages dropped", rep.RemovedPacks, rep.DroppedPages)
		return err
	}}
}

// repacks repacks some packs, and knows sometimes what an earlier one has found out.
func (l *packageLife) repacks() *deed {
	o := index.RepackOptions{Most: l.r.IntN(4)}
	if l.r.IntN(2) == 0 {
		if l.memory == nil {
			l.memory = index.NewRepackMemory()
		}
		o.Memory = l.memory
	}
	if name := l.anyName(); name != "" && l.r.IntN(4) == 0 {
		o.Names, o.Own = []string{name}, l.r.IntN(2) == 0
	}
	l.note("repack", "%d packs of %v, with a memory: %v", o.Most, o.Names, o.Memory != nil)
	return &deed{do: func() error {
		rep, err := l.s.Repack(context.Background(), o)
		l.also("%d of %d packs, %d hot, %d warm, %d cold pages, %d dropped", rep.Repacked, rep.Packs, rep.HotPages,
			rep.WarmPages, rep.ColdPages, rep.DroppedPages)
		return err
	}}
}

func (l *packageLife) opens() {
	name := l.anyName()
	if name == "" || len(l.open) >= 4 {
		l.note("close images", "")
		l.closeImages()
		return
	}
	l.note("open", "%s", name)
	m, err := l.s.OpenImage(context.Background(), name)
	l.must(err)
	l.open = append(l.open, openImage{name, m, l.have[name]})
}

// losesIndex takes the index away, or puts an old one in its place.
func (l *packageLife) losesIndex() {
	l.closeStore()
	dir := filepath.Join(l.dir, "index")
	if _, err := os.Stat(dir); err != nil {
		l.openStore() // there is none yet
		return
	}
	switch n := l.r.IntN(4); {
	case n == 0:
		l.note("keep index", "")
		to := fmt.Sprint(dir, "-copy-", l.steps)
		l.must(os.CopyFS(to, os.DirFS(dir)))
		l.copies = append(l.copies, to)
	case n == 1 && len(l.copies) > 0:
		l.note("old index", "")
		l.must(os.RemoveAll(dir))
		l.must(os.CopyFS(dir, os.DirFS(l.copies[l.r.IntN(len(l.copies))])))
	case n == 2:
		l.note("lose index", "")
		l.must(os.RemoveAll(dir))
	default:
		l.must(damageIndex(l.life, dir))
	}
	l.openStore()
}

// verify reads everything.
func (l *packageLife) verify() {
	l.note("verify", "")
	ctx := context.Background()
	list, err := l.s.List(ctx)
	l.must(err)
	var names []string
	for _, c := range list {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, l.names()) {
		l.fatalf("there are %v, want %v", names, l.names())
	}
	for _, name := range names {
		c := l.have[name]
		m, err := l.s.OpenImage(ctx, name)
		l.must(err)
		if err := readWhole(l.r, m, c, sound); err != nil {
			l.t.Errorf("%s: %v", name, err)
		}
		m.Close()
		if l.r.IntN(3) > 0 {
			continue
		}
		out := filepath.Join(filepath.Dir(l.dir), "out")
		if err := l.s.Export(ctx, name, out, index.ExportOptions{}); err != nil {
			l.t.Errorf("%v", err)
		} else if err := c.sameExport(out); err != nil {
			l.t.Errorf("export %s: %v", name, err)
		}
		l.must(os.RemoveAll(out))
	}
	rep, err := l.s.Check(ctx, index.CheckOptions{ReadData: true})
	if err != nil || !rep.OK() {
		l.t.Errorf("check: %v, %d problems: %s", err, len(rep.Problems), some(rep.Problems))
	}
	if l.t.Failed() {
		l.t.FailNow()
	}
}

func TestPackage(t *testing.T) {
	l := newPackageLife(t, 0.25)
	for l.goesOn() {
		for range 4 + l.r.IntN(8) {
			l.step()
		}
		l.verify()
	}
}
