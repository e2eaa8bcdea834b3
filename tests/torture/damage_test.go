package torture

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/tests/internal/cli"
)

// TestDamage makes a store, damages what lies in it, and reads it in every way: an error or the
// right bytes. What the damage does not touch stays whole, whatever is done to the store then.
func TestDamage(t *testing.T) {
	l := newLife(t, 0.2, 1500)
	for round := 0; l.goesOn() && !t.Failed(); round++ {
		t.Run(fmt.Sprint("round", round), func(t *testing.T) {
			l.t = t
			d := &damageLife{life: l, dir: t.TempDir()}
			d.store = filepath.Join(d.dir, "store")
			d.make()
			d.damage()
			d.read()
			d.work()
			d.command()
			d.read()
			d.repair()
			d.read()
		})
	}
	l.t = t
}

// damageLife is one store and its damage.
type damageLife struct {
	*life
	dir, store string
	pagesOnly  bool            // the damage is that pages are gone, and nothing else
	whole      map[string]bool // checkpoints that the damage costs nothing
}

func (d *damageLife) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatalf("step %d: %v", d.steps, err)
	}
}

func (d *damageLife) open() *index.Store {
	s, err := index.Open(context.Background(), d.store, index.OpenOptions{Create: true, Keeper: keeper})
	d.must(err)
	return s
}

// make fills a store.
func (d *damageLife) make() {
	ctx := context.Background()
	clear(d.have)
	s := d.open()
	for i := range 2 + d.r.IntN(4) {
		c, what := d.newCheckpoint()
		name := d.newName()
		d.note("import", "%s: %s", name, what)
		dir := filepath.Join(d.dir, fmt.Sprint("source-", i))
		d.must(c.writeSource(dir))
		c.source = dir
		src, err := index.OpenSource(dir)
		d.must(err)
		_, _, err = s.Import(ctx, src, index.ImportOptions{Name: name, WorkingSet: c.set})
		d.must(err)
		d.have[name] = c
	}
	if d.r.IntN(2) == 0 { // so that there are packs of a later generation
		name := d.anyName()
		d.note("remove", "%s", name)
		d.must(s.Remove(ctx, name))
		delete(d.have, name)
		_, err := s.GC(ctx, index.GCOptions{})
		d.must(err)
	}
	if d.r.IntN(2) == 0 {
		d.note("repack", "")
		_, err := s.Repack(ctx, index.RepackOptions{})
		d.must(err)
	}
	d.must(s.Close())
}

// damage damages one to three blobs.
func (d *damageLife) damage() {
	d.pagesOnly, d.whole = true, map[string]bool{}
	for range 1 + d.r.IntN(3) {
		var blobs []string
		for _, sub := range []string{"packs", "packs", "checkpoints"} {
			found, err := filepath.Glob(filepath.Join(d.store, sub, "*"))
			d.must(err)
			blobs = append(blobs, found...)
		}
		if len(blobs) == 0 {
			return
		}
		blob := blobs[d.r.IntN(len(blobs))]
		name, err := filepath.Rel(d.store, blob)
		d.must(err)
		if _, _, isPack := pack.ParseName(name); isPack && d.r.IntN(3) == 0 {
			d.note("lose slots", "%s", name)
			err := d.loseSlots(name)
			if err != nil {
				d.also("%v", err) // it is too damaged for that
			}
			continue
		}
		d.pagesOnly = false
		what, err := damageFile(d.r, blob)
		d.must(err)
		d.note("damage", "%s: %s", name, what)
	}
}

// loseSlots puts a generation in the place of a pack that lacks some of its pages, as if they had
// been collected, and has the others in other tiers.
func (d *damageLife) loseSlots(name string) error {
	number, generation, _ := pack.ParseName(name)
	dec, err := pack.NewDecoder()
	d.must(err)
	defer dec.Close()
	f, err := os.Open(filepath.Join(d.store, name))
	d.must(err)
	r, err := pack.Open(fileObject{f}, name, dec)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	defer r.Close()
	enc, err := pack.NewEncoder(pack.ProfileDefault)
	d.must(err)
	next := pack.Name(number, generation+1)
	out, err := os.Create(filepath.Join(d.store, next))
	d.must(err)
	w, err := pack.NewWriter(&fileWriter{File: out}, number, generation+1)
	d.must(err)
	err = rewrite(d.store, r, w, enc, pack.Keep{
		Slot: func(uint32) bool { return d.r.IntN(4) > 0 },
		Tier: func(uint32) pack.Tier { return pack.Tier(d.r.IntN(4)) },
		Lost: func(error) {},
	})
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	if _, err := w.Finish(); err != nil {
		return err
	}
	return os.Remove(filepath.Join(d.store, name))
}

// read opens and reads everything. What was whole the last time still is, and check knows what is not.
func (d *damageLife) read() {
	d.note("read", "")
	ctx := context.Background()
	s := d.open()
	defer s.Close()
	list, err := s.List(ctx)
	d.must(err)
	listed := map[string]bool{}
	for _, c := range list {
		listed[c.Name] = true
		if d.have[c.Name] == nil {
			d.t.Errorf("%s came out of the damage", c.Name)
		}
	}
	rep, err := s.Check(ctx, index.CheckOptions{ReadData: true})
	d.must(err)
	d.also("%d problems: %s", len(rep.Problems), some(rep.Problems))
	lost := map[string]bool{}
	for _, l := range rep.Lost {
		lost[l.Checkpoint] = true
	}
	for _, name := range d.names() {
		c := d.have[name]
		d.images(s, name, c)
		err := d.export(s, name, c)
		whole := err == nil
		d.salvage(s, name, c)
		// The other way round there may be: an export takes pages from segments too. And it refuses
		// pages that nothing proves, which a check does not count as lost.
		if listed[name] && !whole && !lost[name] && !unprovedOnly(err) {
			d.t.Errorf("%s cannot be exported, and check says that nothing of it is lost", name)
		}
		if d.whole[name] && !whole {
			d.t.Errorf("%s was whole before", name)
		}
		d.whole[name] = whole
	}
}

// unprovedOnly says whether an export failed for want of hashes, and for nothing else.
func unprovedOnly(err error) bool {
	var e *index.ExportError
	return errors.As(err, &e) && e.Unproved > 0 && e.Pages == 0 && len(e.Files) == 0
}

// images reads a checkpoint in every way.
func (d *damageLife) images(s *index.Store, name string, c *checkpoint) {
	if m, err := s.OpenImage(context.Background(), name); err == nil {
		if err := readWhole(d.r, m, c, damaged); err != nil {
			d.t.Errorf("%s: %v", name, err)
		}
		m.Close()
	}
	for file, want := range c.files {
		got, err := s.ReadFile(context.Background(), name, file)
		if err == nil && string(got) != string(want) {
			d.t.Errorf("%s/%s is wrong", name, file)
		}
	}
}

// repair mends what can be mended, with what was imported to take it from, or some of that.
func (d *damageLife) repair() {
	s := d.open()
	defer s.Close()
	all := d.r.IntN(2) == 0
	var from []string
	for _, name := range d.names() {
		if all || d.r.IntN(3) == 0 {
			from = append(from, d.have[name].source)
		}
	}
	d.note("repair", "from %d of %d", len(from), len(d.have))
	rep, err := s.Check(context.Background(), index.CheckOptions{Repair: true, From: from})
	d.must(err)
	for _, r := range rep.Repaired {
		d.tally["pages repaired"] += r.Pages
	}
	if all && d.pagesOnly && len(rep.Lost) > 0 {
		d.t.Errorf("with all that was imported at hand, a repair leaves %+v", rep.Lost)
	}
}

// export exports one checkpoint: all of it, or nothing that looks like it.
func (d *damageLife) export(s *index.Store, name string, c *checkpoint) error {
	out := filepath.Join(d.dir, "out")
	err := s.Export(context.Background(), name, out, index.ExportOptions{})
	if err == nil {
		if err := c.sameExport(out); err != nil {
			d.t.Errorf("export of %s says that it is good: %v", name, err)
		}
	} else if _, err := os.Stat(filepath.Join(out, "memory")); err == nil {
		d.t.Errorf("the export of %s failed and left a memory", name)
	}
	d.must(os.RemoveAll(out))
	return err
}

// salvage exports what is good: what is no hole must be right.
func (d *damageLife) salvage(s *index.Store, name string, c *checkpoint) {
	out := filepath.Join(d.dir, "out")
	err := s.Export(context.Background(), name, out, index.ExportOptions{Salvage: true})
	var lost *index.ExportError
	if !errors.As(err, &lost) || lost.Salvaged == "" {
		d.must(os.RemoveAll(out))
		return
	}
	d.tally["salvage"]++
	b, err := os.ReadFile(filepath.Join(lost.Salvaged, "holes.json"))
	d.must(err)
	var holes index.Holes
	d.must(json.Unmarshal(b, &holes))
	hole := map[int]bool{}
	for _, gfn := range gfns(holes.Memory) {
		hole[int(gfn)] = true
	}
	got, err := os.ReadFile(filepath.Join(lost.Salvaged, "memory.salvaged"))
	if errors.Is(err, os.ErrNotExist) && len(hole) == 0 {
		got, err = os.ReadFile(filepath.Join(lost.Salvaged, "memory"))
	}
	d.must(err)
	want := c.bytes()
	if len(got) != len(want) {
		d.t.Fatalf("%s: %d bytes were salvaged, of %d", name, len(got), len(want))
	}
	for _, gfn := range wrong(got, want) {
		if !hole[gfn] {
			d.t.Errorf("%s: page %d was salvaged, and is wrong", name, gfn)
		}
	}
	d.must(os.RemoveAll(lost.Salvaged))
}

// work does to the damaged store what users do.
func (d *damageLife) work() {
	ctx := context.Background()
	s := d.open()
	defer s.Close()
	name := d.newName()
	c, what := d.newCheckpoint()
	d.note("import", "%s: %s", name, what)
	dir := filepath.Join(d.dir, "source-after")
	d.must(c.writeSource(dir))
	c.source = dir
	src, err := index.OpenSource(dir)
	d.must(err)
	if _, _, err := s.Import(ctx, src, index.ImportOptions{Name: name, WorkingSet: c.set}); err != nil {
		d.also("%v", err)
	} else {
		d.have[name] = c
		m, err := s.OpenImage(ctx, name)
		d.must(err)
		defer m.Close()
		if err := readWhole(d.r, m, c, damaged); err != nil {
			d.t.Errorf("%s, imported into the damage: %v", name, err)
		}
	}
	_, err = s.Repack(ctx, index.RepackOptions{})
	d.note("repack", "%v", err)
	_, err = s.GC(ctx, index.GCOptions{})
	d.note("gc", "%v", err)
}

// command exports and checks through the command line: what is not good has its exit status.
func (d *damageLife) command() {
	const corrupt, damagedExport = 12, 27
	d.note("command", "")
	for _, name := range d.names() {
		out := filepath.Join(d.dir, "out")
		r := cli.Run(d.t, "export", d.store, name, out)
		switch r.Code {
		case 0:
			if err := d.have[name].sameExport(out); err != nil {
				d.t.Errorf("export %s ends with 0: %v", name, err)
			}
		case corrupt, damagedExport, 16: // 16: no such checkpoint, its root is gone
			if _, err := os.Stat(filepath.Join(out, "memory")); err == nil {
				d.t.Errorf("the export of %s ends with %d and left a memory", name, r.Code)
			}
		default:
			d.t.Errorf("%v", r)
		}
		d.must(os.RemoveAll(out))
	}
	r := cli.Run(d.t, "check", d.store, "--read-data")
	if !slices.Contains([]int{0, corrupt}, r.Code) {
		d.t.Errorf("%v", r)
	}
}

// fileObject is a file as a blob.
type fileObject struct{ *os.File }

func (o fileObject) Size() int64 {
	st, err := o.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

// fileWriter is a file as a blob that is being written.
type fileWriter struct{ *os.File }

func (w *fileWriter) Commit() error { return w.Close() }
func (w *fileWriter) Abort() error  { return errors.Join(w.Close(), os.Remove(w.Name())) }

// rewrite is pack.Rewrite under the key of a store.
func rewrite(store string, r *pack.Reader, w *pack.Writer, enc *pack.Encoder, keep pack.Keep) error {
	b, err := os.ReadFile(filepath.Join(store, "thaw-store.json"))
	if err != nil {
		return err
	}
	var head struct {
		Key string `json:"hash_key"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return err
	}
	key, err := hex.DecodeString(head.Key)
	if err != nil {
		return err
	}
	return pack.Rewrite(context.Background(), r, w, enc, pack.HashKey(key), keep)
}
