package index

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/thawfs/thaw/index/pack"
)

// CheckOptions is how closely to look.
type CheckOptions struct {
	// ReadData decodes every page and compares it with its hash.
	ReadData bool
	// Rebuild throws the Badger index away first and makes it again from packs and checkpoints.
	Rebuild bool
	// Names are the checkpoints to look at, and at the packs that they refer to; empty: all, and all packs.
	// Not with Rebuild or Repair.
	Names []string
	// Repair restores what is damaged and stored elsewhere as well: in another pack, in a segment,
	// or in the memory of one of From. A page is known by its hash; nothing is guessed. It reads
	// all data.
	Repair bool
	// From are directories of exports, or files that are the memory of one.
	From     []string
	Progress func(Progress)
}

// CheckReport is what was looked at and what is wrong with it. After a repair it says what is
// still wrong.
type CheckReport struct {
	Checkpoints int    `json:"checkpoints"`
	Packs       int    `json:"packs"`
	Pages       uint64 `json:"pages"`      // stored pages in the directories of packs
	PagesRead   uint64 `json:"pages_read"` // with ReadData
	IndexKeys   uint64 `json:"index_keys"` // page hashes that Badger knows
	// IndexMended is how many pages were added to the index, which did not know them. That is no
	// damage: the next import with such a page would have stored it again.
	IndexMended uint64 `json:"index_mended,omitempty"`
	// NoIndex says why there is no Badger index to check, for example that the disk is full. That is no
	// damage: it is made again when that is possible. A reader has no index and does not check it.
	NoIndex  string    `json:"no_index,omitempty"`
	Rebuilt  bool      `json:"rebuilt"`
	Names    []string  `json:"names,omitempty"` // the checkpoints that were looked at; empty: all
	Problems []Problem `json:"problems"`
	// Covers says in a sentence what was looked at: what the verdict holds for.
	Covers string `json:"covers"`
	// Lost is what the damage costs, by checkpoint. Empty: it costs none of them anything.
	Lost []Loss `json:"lost"`
	// Repaired is what was brought back.
	Repaired []Repair `json:"repaired,omitempty"`
}

// OK is whether nothing is wrong.
func (r *CheckReport) OK() bool { return len(r.Problems) == 0 }

// Harmless is whether nothing is wrong that costs a checkpoint anything.
func (r *CheckReport) Harmless() bool {
	for _, p := range r.Problems {
		if !p.Harmless {
			return false
		}
	}
	return len(r.Lost) == 0
}

// Problem is one thing that is wrong.
type Problem struct {
	Checkpoint string `json:"checkpoint,omitempty"` // the one that is affected, if known
	Pack       string `json:"pack,omitempty"`
	What       string `json:"what"`
	// Parts is how many pages, records or frames of the pack are damaged in this way, First the first
	// runs of them.
	Parts uint64     `json:"parts,omitempty"`
	First []PartsRun `json:"first,omitempty"`
	// Harmless: it costs no checkpoint anything. No checkpoint refers to it, or there is another
	// copy, or it can be made again.
	Harmless bool `json:"harmless,omitempty"`
}

// PartsRun is neighbouring parts of a pack, by their numbers.
type PartsRun struct {
	Number uint64 `json:"number"`
	Count  uint64 `json:"count"`
}

// Loss is what damage costs one checkpoint.
type Loss struct {
	Checkpoint string   `json:"checkpoint"`
	All        bool     `json:"all,omitempty"`   // its root cannot be read: nothing is known of it
	Pages      uint64   `json:"pages,omitempty"` // of memory, that cannot be read
	First      []uint64 `json:"first,omitempty"` // the first of them
	Files      []string `json:"files,omitempty"` // that cannot be read whole
}

// Check verifies the store. What is wrong with it stands in the report; an error means that the
// check could not be made.
//
// It verifies every root, every pack's directory and hashes, every node of every page map, and that
// every page a checkpoint refers to is there; of a store that is open for writing also that the index
// knows every page. With ReadData it reads all that is stored, and compares pages with their hashes,
// also those in segments.
func (s *Store) Check(ctx context.Context, o CheckOptions) (CheckReport, error) {
	begin := s.alone
	if o.Rebuild || o.Repair {
		begin = s.write
	}
	done, err := begin(ctx)
	if err != nil {
		return CheckReport{}, err
	}
	defer done()
	for _, name := range o.Names {
		if s.entry(name) == nil {
			return CheckReport{}, fmt.Errorf("%s: %w", name, ErrNotFound)
		}
	}
	o.ReadData = o.ReadData || o.Repair
	c, err := s.check(ctx, o)
	if err != nil || !o.Repair {
		return c.report, err
	}
	rebuilt, repaired := c.report.Rebuilt, []Repair(nil)
	o.Rebuild = false // that was done
	for more := true; more; {
		var round []Repair
		round, more, err = c.repair(ctx)
		repaired = append(repaired, round...)
		if err == nil && len(round) > 0 {
			c, err = s.check(ctx, o)
		}
		c.report.Repaired, c.report.Rebuilt = repaired, rebuilt
		if err != nil {
			return c.report, fmt.Errorf("repair: %w", err)
		}
	}
	return c.report, nil
}

// check is one check, under the writer's lock.
func (s *Store) check(ctx context.Context, o CheckOptions) (*checker, error) {
	c := newChecker(ctx, s, o)
	defer c.packs.release()
	if err := c.run(ctx); err != nil {
		return c, fmt.Errorf("check: %w", err)
	}
	return c, nil
}

// checker is one check.
type checker struct {
	s       *Store
	o       CheckOptions
	packs   *lazyPacks
	nodes   nodes // of packs
	entries []*catalogEntry
	unread  int                    // roots that cannot be read
	seen    map[uint64]*nodeCheck  // nodes that were looked at
	records map[uint64]*bitmap     // that some checkpoint needs, by pack
	damaged map[uint64]*packDamage // what is wrong with packs
	foreign map[uint64]bool        // packs that are not those that a root means
	hashes  *rawHashes
	stale   map[string]bool // checkpoints whose segments are damaged
	facts   []fact
	report  CheckReport
}

// packDamage is what is wrong with one pack.
type packDamage struct {
	err    error  // it cannot be opened; nil: it can
	slots  bitmap // whose pages cannot be read, or are others than their hashes say
	needed bitmap // of these, and of dead ones: those that a checkpoint refers to
	mend   bool   // there is damage that a rewritten pack would not have
	hashes bool   // its hashes are damaged
}

// fact is the damage of one kind in a pack: one problem of the report, since a pack has up to 16,777,216
// pages. Whether it is harmless is found out later.
type fact struct {
	problem int // in the report
	pack    uint64
	kind    pack.DamageKind
	numbers bitmap // of what is damaged
}

func newChecker(ctx context.Context, s *Store, o CheckOptions) *checker {
	c := &checker{
		s: s, o: o, packs: newLazyPacks(ctx, s.packs), seen: map[uint64]*nodeCheck{},
		records: map[uint64]*bitmap{}, damaged: map[uint64]*packDamage{}, stale: map[string]bool{},
		foreign: map[uint64]bool{},
	}
	c.hashes = newRawHashes(c.packs)
	c.nodes = &witness{nodes: c.packs, seen: c.needs}
	c.report.Problems, c.report.Lost, c.report.Names = []Problem{}, []Loss{}, o.Names
	return c
}

// needs notes that a checkpoint needs a record.
func (c *checker) needs(ref uint64) error {
	b := c.records[ref>>24]
	if b == nil {
		b = new(bitmap)
		c.records[ref>>24] = b
	}
	b.add(pack.Ref(ref).Slot())
	return nil
}

// wants says whether a checkpoint is to be looked at.
func (c *checker) wants(name string) bool {
	return len(c.o.Names) == 0 || slices.Contains(c.o.Names, name)
}

// damage returns what is noted of a pack.
func (c *checker) damage(number uint64) *packDamage {
	d := c.damaged[number]
	if d == nil {
		d = &packDamage{}
		c.damaged[number] = d
	}
	return d
}

func (c *checker) problem(checkpoint, pack string, harmless bool, format string, args ...any) {
	c.report.Problems = append(c.report.Problems, Problem{
		Checkpoint: checkpoint, Pack: pack, What: fmt.Sprintf(format, args...), Harmless: harmless,
	})
}

// note reports an error that is damage and returns nil; it returns any other error.
func (c *checker) note(checkpoint string, harmless bool, err error) error {
	if !isDamage(err) {
		return err
	}
	var damage *CorruptError
	name := ""
	if errors.As(err, &damage) {
		name = damage.Pack
	}
	c.problem(checkpoint, name, harmless, "%v", err)
	return nil
}

func (c *checker) run(ctx context.Context) error {
	if c.o.Rebuild {
		if err := c.s.hints.rebuild(ctx, c.o.Progress); err != nil {
			return err
		}
		c.report.Rebuilt = true
	}
	if !c.s.readOnly {
		if err := c.s.hints.refresh(ctx, c.o.Progress); err != nil {
			return err
		}
	}
	if err := c.roots(ctx); err != nil {
		return err
	}
	c.packs.ids = nil // packs are looked at for themselves
	if err := c.allPacks(ctx); err != nil {
		return err
	}
	if c.o.ReadData {
		if err := c.segments(ctx); err != nil {
			return err
		}
	}
	if !c.report.OK() {
		if err := c.losses(ctx); err != nil {
			return err
		}
	}
	if err := c.indexKeys(ctx); err != nil {
		return err
	}
	c.report.Covers = c.covers()
	return nil
}

// covers says what the verdict holds for.
func (c *checker) covers() string {
	s := "every root, page map, file and directory was read; the content of pages was not (--read-data)"
	if c.o.ReadData {
		s = "every root, page map, file, directory and segment was read, and every page compared with " +
			"its hash"
	}
	if len(c.o.Names) > 0 {
		s = "of " + strings.Join(c.o.Names, ", ") + ": " + s
	}
	if c.s.readOnly || c.report.NoIndex != "" {
		s += "; the index was not looked at"
	}
	return s
}

func (c *checker) indexKeys(ctx context.Context) error {
	if c.s.readOnly {
		return nil
	}
	if err := c.s.hints.missing(ctx); err != nil {
		c.report.NoIndex = err.Error()
		return nil
	}
	tail, err := c.s.hints.known(ctx)
	if err != nil {
		return err
	}
	c.report.IndexKeys = tail
	return c.s.hints.do(ctx, func(k keyStore) error {
		c.report.IndexKeys = tail
		return scanAll(ctx, k, rowPage, func(rows []row) error {
			c.report.IndexKeys += uint64(len(rows))
			return nil
		})
	})
}
