package index

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/thawfs/thaw/index/pack"
)

// ExportOptions is how to export.
type ExportOptions struct {
	// Salvage writes the good part of a damaged checkpoint, under names that no complete one has,
	// with a list of what is missing (see Holes). Without it nothing is left of such an export.
	Salvage  bool
	Progress func(Progress)
	// Finish, if it is not nil, is called with the directory that all was written to, when nothing of it is
	// damaged and before it has its name. It may change what is in it. After an error there is no directory.
	Finish func(dir string, c Checkpoint) error
}

// ExportError says that a checkpoint is damaged, and what of it could not be exported.
type ExportError struct {
	Name     string
	Pages    uint64   // of memory
	First    []uint64 // the first of them
	Unproved uint64   // pages whose own checksums are right, and whose hashes are damaged
	Files    []string // that could not be read whole
	Salvaged string   // the directory with the rest; "": nothing was written
	Err      error    // what is wrong with the first of all
}

func (e *ExportError) Error() string {
	var lost []string
	if e.Pages > 0 {
		lost = append(lost, pageNames(e.First, e.Pages))
	}
	if e.Unproved > 0 {
		lost = append(lost, fmt.Sprintf("the hashes of %d pages", e.Unproved))
	}
	if len(e.Files) > 0 {
		lost = append(lost, "of files: "+strings.Join(e.Files, ", "))
	}
	if len(lost) == 0 {
		return fmt.Sprintf("the checkpoint cannot be read, nothing was written: %v", e.Err)
	}
	left := "nothing was written"
	if e.Salvaged != "" {
		left = "the rest is in " + e.Salvaged
	}
	return fmt.Sprintf("damaged: %s; %s: %v", strings.Join(lost, ", and "), left, e.Err)
}

func (e *ExportError) Unwrap() error { return e.Err }

// Names in a directory that was salvaged.
const (
	salvagedSuffix = ".salvaged"
	fileHoles      = "holes.json"
)

// HolesFormat names the layout of holes.json.
const HolesFormat = "thaw-holes 1"

// Holes is the JSON of holes.json, which stands beside what was salvaged of a checkpoint: the file
// memory.salvaged, and each file whole under its own name or with holes as NAME.salvaged. A hole
// reads as zeros.
type Holes struct {
	Format      string `json:"format"`
	Checkpoint  string `json:"checkpoint"`
	ID          string `json:"id"`
	MemoryBytes int64  `json:"memory_bytes"`
	LostPages   uint64 `json:"lost_pages"`
	Memory      []Run  `json:"memory"` // pages that are lost, ascending
	// Unproved are pages that are there, with right checksums, and whose hashes are damaged.
	Unproved []Run             `json:"unproved,omitempty"`
	Files    map[string][]Hole `json:"files"` // what is lost of each that is not whole
	Why      string            `json:"why"`   // of the first of all
}

// Export writes a checkpoint as a plain checkpoint directory, which must not exist yet. The memory file
// is sparse. After an error there is no directory. Every page is compared with its hash. A page that
// its pack has lost is taken from the segment, if its hash is right there. If anything is damaged then,
// the error is an *ExportError.
//
// It works in a directory beside dir. What a killed process left there is removed by the
// next export beside it.
func (s *Store) Export(ctx context.Context, name, dir string, o ExportOptions) error {
	err := s.export(ctx, name, filepath.Clean(dir), o)
	var known *ExportError
	if isDamage(err) && !errors.As(err, &known) {
		err = &ExportError{Name: name, Err: err}
	}
	if err != nil {
		return fmt.Errorf("export %s to %s: %w", name, dir, err)
	}
	return nil
}

func (s *Store) export(ctx context.Context, name, dir string, o ExportOptions) (err error) {
	x := &exporter{
		progress: o.Progress, lost: &lostPages{}, unproved: &lostPages{},
		badHashes: map[uint64]bool{}, files: map[string][]Hole{},
	}
	if x.m, err = s.openDamaged(ctx, Version{Name: name}, x.lost); err != nil {
		return err
	}
	defer x.m.Close()
	if _, err := os.Lstat(dir); err == nil {
		return ErrExists
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	work, err := newWorkDir(filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.discard()) }()
	x.dir = work.path
	if err := x.write(ctx); err != nil {
		return err
	}
	damage := x.damage()
	if damage != nil && !o.Salvage {
		return damage
	}
	if damage != nil {
		if err := x.markSalvaged(damage); err != nil {
			return err
		}
	}
	if damage == nil && o.Finish != nil {
		if err := o.Finish(x.dir, x.m.entry.Checkpoint); err != nil {
			return err
		}
	}
	if err := work.publish(dir); err != nil {
		return err
	}
	if damage != nil {
		damage.Salvaged = dir
		return damage
	}
	return nil
}

// exporter is one export.
type exporter struct {
	m        *Image
	dir      string // to write in
	progress func(Progress)

	lost     *lostPages // of memory
	unproved *lostPages // of memory: not lost, but there is no hash to compare them with

	mu        sync.Mutex
	badHashes map[uint64]bool // by pack; guarded by mu

	files   map[string][]Hole // what is lost of files
	fileErr error             // why the first of those
}

func (x *exporter) write(ctx context.Context) error {
	if err := x.memory(ctx); err != nil {
		return err
	}
	for _, file := range sortedKeys(x.m.root.FileParts) {
		if err := x.file(ctx, file); err != nil {
			return fmt.Errorf("file %s: %w", file, err)
		}
	}
	return nil
}

// damage sums up what could not be read; nil if all could.
func (x *exporter) damage() *ExportError {
	if x.lost.count == 0 && x.unproved.count == 0 && len(x.files) == 0 {
		return nil
	}
	e := &ExportError{
		Name: x.m.entry.Name, Pages: x.lost.count, First: firstOf(x.lost.runs(), namedPages),
		Unproved: x.unproved.count, Files: sortedKeys(x.files),
	}
	for _, err := range []error{x.unproved.err, x.fileErr, x.lost.err} {
		if err != nil {
			e.Err = err
		}
	}
	return e
}

// markSalvaged renames what is not whole, and the memory in any case, so that the directory cannot be
// taken for a checkpoint, and writes the list of holes.
func (x *exporter) markSalvaged(damage *ExportError) error {
	for _, file := range append(sortedKeys(x.files), fileMemory) {
		path := filepath.Join(x.dir, file)
		if err := os.Rename(path, path+salvagedSuffix); err != nil {
			return err
		}
	}
	c := x.m.entry.Checkpoint
	b, err := json.MarshalIndent(Holes{
		Format: HolesFormat, Checkpoint: c.Name, ID: c.ID, MemoryBytes: c.MemoryBytes,
		LostPages: x.lost.count, Memory: x.lost.runs(), Unproved: x.unproved.runs(),
		Files: x.files, Why: damage.Err.Error(),
	}, "", "  ")
	if err != nil {
		return err
	}
	return writeNew(filepath.Join(x.dir, fileHoles), func(f *os.File) error {
		_, err := f.Write(append(b, '\n'))
		return err
	})
}

// writeNew makes a file that only its owner may read; it is durable when writeNew returns.
func writeNew(path string, fill func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// file writes a file beside the memory, as much of it as can be read.
func (x *exporter) file(ctx context.Context, file string) error {
	m, parts := x.m, x.m.root.FileParts[file]
	n := newPinnedNodes(m.root.top.packs, m.pins)
	hasher := pack.NewHasher(m.s.key)
	var sums []byte
	lose := func(h Hole, err error) {
		if len(x.files) == 0 {
			x.fileErr = fmt.Errorf("file %s: %w", file, err)
		}
		x.files[file] = append(x.files[file], h)
	}
	err := writeNew(filepath.Join(x.dir, file), func(f *os.File) error {
		for i := range parts.Parts {
			if err := ctx.Err(); err != nil {
				return err
			}
			off := int64(i) * filePartSize
			b, err := m.root.part(n, parts, i)
			if isDamage(err) {
				lose(Hole{off, min(parts.Size-off, filePartSize)}, err)
				continue
			}
			if err != nil {
				return err
			}
			if _, err := f.WriteAt(b, off); err != nil {
				return err
			}
			sum := hasher.Sum(b)
			sums = append(sums, sum[:]...)
		}
		return f.Truncate(parts.Size)
	})
	if err != nil || len(x.files[file]) > 0 {
		return err
	}
	// All parts could be read; are they this file's?
	if sum := hasher.Sum(sums); parts.Sum != hex.EncodeToString(sum[:]) {
		lose(Hole{0, parts.Size}, &CorruptError{
			Pack: rootName(m.root.Name, m.root.Generation), What: "file", Err: pack.ErrHash,
		})
	}
	return nil
}
