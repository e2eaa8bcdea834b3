package index

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/thawfs/thaw/index/pack"
)

// maxRootFile is the size of the largest file that is stored in the root itself, in bytes. The
// working set is stored there whatever its size: it changes with the generations of the root.
const maxRootFile = 16 << 10

// fileWriter stores the files of a checkpoint, in parts of filePartSize.
type fileWriter struct {
	root   *root
	record func(kind uint32, data []byte) (ref uint64, err error) // into a pack
	hasher *pack.Hasher
	packs  map[uint64]bool // that parts lie in
}

// source stores the files and the info.json of a source.
func (w *fileWriter) source(src Source) error {
	w.root.Files = map[string]int64{}
	w.root.FileParts = map[string]fileParts{}
	w.packs = map[uint64]bool{}
	for _, name := range sortedKeys(src.Files) {
		if err := CheckFileName(name); err != nil {
			return err
		}
		if err := w.path(name, src.Files[name]); err != nil {
			return fmt.Errorf("file %s: %w", name, err)
		}
	}
	if src.Info == nil {
		return nil
	}
	// The bytes as they are, for the export. Guest has the same content as JSON.
	return w.add(fileInfo, bytes.NewReader(src.Info), true)
}

func (w *fileWriter) path(name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	return w.add(name, f, name == fileWorkingSet || st.Size() <= maxRootFile)
}

// add stores a file, in the root or in a pack.
func (w *fileWriter) add(name string, r io.Reader, inRoot bool) error {
	var p fileParts
	var sums []byte
	for {
		part := make([]byte, filePartSize)
		n, err := io.ReadFull(r, part)
		if err == io.EOF {
			break
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			return err
		}
		ref, err := w.part(part[:n], inRoot)
		if err != nil {
			return err
		}
		sum := w.hasher.Sum(part[:n])
		sums = append(sums, sum[:]...)
		p.Parts = append(p.Parts, ref)
		p.Size += int64(n)
		if n < filePartSize {
			break
		}
	}
	sum := w.hasher.Sum(sums)
	p.Sum = hex.EncodeToString(sum[:])
	w.root.FileParts[name] = p
	if name != fileInfo {
		w.root.Files[name] = p.Size
	}
	return nil
}

func (w *fileWriter) part(b []byte, inRoot bool) (uint64, error) {
	if inRoot {
		n := len(w.root.records)
		w.root.records[n] = b
		return uint64(pack.MakeRef(rootNumber, uint32(n))), nil
	}
	ref, err := w.record(kindFile, b)
	if err == nil {
		w.packs[ref>>24] = true
	}
	return ref, err
}

// File is an open file of a checkpoint, one beside its memory. ReadAt may be called by many
// goroutines at once.
type File struct {
	s     *Store
	entry *catalogEntry
	root  *root
	parts fileParts
	pins  *pins
	nodes *pinnedNodes

	mu     sync.Mutex
	number int    // of the part in part, which was read last
	part   []byte // nil: none; guarded by mu, as number is
	closed bool
}

// OpenFile opens a file of a checkpoint ("state", "working-set", ...) for reading in parts.
func (s *Store) OpenFile(ctx context.Context, name, file string) (*File, error) {
	return s.openFile(ctx, Version{Name: name}, file)
}

// OpenFileOf is OpenFile for one version of a checkpoint: ErrChanged, and never other bytes, if the
// name has another version by now. Only the working set depends on the generation.
func (s *Store) OpenFileOf(ctx context.Context, v Version, file string) (*File, error) {
	if v.ID == "" {
		return nil, fmt.Errorf("open %s/%s: no ID was given", v.Name, file)
	}
	return s.openFile(ctx, v, file)
}

func (s *Store) openFile(ctx context.Context, v Version, file string) (*File, error) {
	name := v.Name
	var f *File
	err := s.useSettled(ctx, v, func(e *catalogEntry, r *root, without bool) error {
		if v.ID != "" && file == fileWorkingSet && !r.hasSetOf(v.Generation) {
			return ErrChanged
		}
		f = &File{s: s, entry: e, root: r}
		return f.open(ctx, file, without)
	})
	if err != nil {
		return nil, fmt.Errorf("open %s/%s: %w", name, file, err)
	}
	return f, nil
}

func (f *File) open(ctx context.Context, file string, without bool) (err error) {
	parts, ok := f.root.FileParts[file]
	if !ok {
		return ErrNotFound
	}
	f.parts = parts
	var packs []uint64
	for _, ref := range parts.Parts {
		if ref>>24 != rootNumber {
			packs = append(packs, ref>>24)
		}
	}
	slices.Sort(packs)
	packs = slices.Compact(packs)
	if f.pins, err = f.s.packs.pinReadable(ctx, packs, f.root.top.ids, without); err != nil {
		return err
	}
	f.nodes = newPinnedNodes(packs, f.pins)
	return nil
}

// Size of the file, in bytes.
func (f *File) Size() int64 { return f.parts.Size }

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, ErrClosed
	}
	if off < 0 {
		return 0, errors.New("read at a negative offset")
	}
	for n < len(p) {
		if off >= f.parts.Size {
			return n, io.EOF
		}
		if i := int(off / filePartSize); f.part == nil || f.number != i {
			if f.part, err = f.root.part(f.nodes, f.parts, i); err != nil {
				return n, err
			}
			f.number = i
		}
		c := copy(p[n:], f.part[off%filePartSize:])
		n += c
		off += int64(c)
	}
	return n, nil
}

// part reads part i of a file.
func (r *root) part(n nodes, p fileParts, i int) (b []byte, err error) {
	ref := p.Parts[i]
	if ref>>24 == rootNumber {
		b, err = r.ownPart(ref)
	} else {
		b, err = n.node(ref, kindFile)
	}
	if err != nil {
		return nil, err
	}
	if want := min(p.Size-int64(i)*filePartSize, filePartSize); int64(len(b)) != want {
		return nil, &CorruptError{Pack: rootName(r.Name, r.Generation),
			What: fmt.Sprintf("part of a file: %d bytes, want %d", len(b), want)}
	}
	return b, nil
}

// ownPart is a part of a file that the root itself has.
func (r *root) ownPart(ref uint64) ([]byte, error) {
	i := int(pack.Ref(ref).Slot())
	if err := r.lostParts[i]; err != nil {
		return nil, err
	}
	b, ok := r.records[i]
	if !ok {
		return nil, &CorruptError{Pack: rootName(r.Name, r.Generation),
			What: fmt.Sprintf("record %d", i), Err: errors.New("it is no part of a file")}
	}
	return b, nil
}

// Close closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	f.part = nil
	f.pins.release()
	f.s.unuse(f.entry)
	return nil
}

// ReadFile returns a whole file of a checkpoint.
func (s *Store) ReadFile(ctx context.Context, name, file string) ([]byte, error) {
	f, err := s.OpenFile(ctx, name, file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, f.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read %s/%s: %w", name, file, err)
	}
	return b, nil
}
