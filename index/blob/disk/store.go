package disk

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/thawfs/thaw/index/blob"
)

// blockSize is what the places of blobs are rounded to, in bytes.
const blockSize = 4096

// Store is a blob store that lies on a simulated disk. Reads of objects are charged; what is written
// is not.
type Store struct {
	blob.Store
	disk *Disk

	mu    sync.Mutex
	place map[string]int64 // position of each blob on the device; guarded by mu
	end   int64            // where the next one goes; guarded by mu
}

var (
	_ blob.Store     = (*Store)(nil)
	_ blob.Dropper   = (*Store)(nil)
	_ blob.Describer = (*Store)(nil)
)

// Wrap lays the blobs of inner on a disk.
func Wrap(ctx context.Context, inner blob.Store, d *Disk) (*Store, error) {
	all, err := inner.List(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("lay blobs on disk %s: %w", d.spec, err)
	}
	s := &Store{Store: inner, disk: d, place: make(map[string]int64, len(all))}
	for _, b := range all {
		s.at(b.Name, b.Size)
	}
	return s, nil
}

// at returns the position of a blob; a new one goes behind all others.
func (s *Store) at(name string, size int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	pos, ok := s.place[name]
	if !ok {
		pos = s.end
		s.place[name] = pos
		s.end += (size + blockSize - 1) / blockSize * blockSize
	}
	return pos
}

// Open implements blob.Store.
func (s *Store) Open(ctx context.Context, name string) (blob.Object, error) {
	o, err := s.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &object{Object: o, disk: s.disk, pos: s.at(name, o.Size())}, nil
}

// Remove implements blob.Store. The place stays empty; another blob of the name gets a new one.
func (s *Store) Remove(ctx context.Context, name string) error {
	if err := s.Store.Remove(ctx, name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.place, name)
	return nil
}

// Drop implements blob.Dropper.
func (s *Store) Drop(ctx context.Context, name string) error {
	return blob.Drop(ctx, s.Store, name)
}

// Medium implements blob.Describer.
func (s *Store) Medium() blob.Medium { return s.disk.Medium() }

// Medium is the device as a reader sees it.
func (d *Disk) Medium() blob.Medium {
	return blob.Medium{Latency: d.spec.Seek + d.spec.Latency, Parallel: d.spec.Parallel}
}

type object struct {
	blob.Object
	disk *Disk
	pos  int64
}

// Medium implements blob.Describer.
func (o *object) Medium() blob.Medium { return o.disk.Medium() }

// ReadAt implements io.ReaderAt.
func (o *object) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= o.Size() {
		return o.Object.ReadAt(p, off) // nothing is read
	}
	n := min(int64(len(p)), o.Size()-off)
	got, err := o.disk.ReadAt(o.Object, p[:n], off, o.pos+off)
	if err == nil && got < len(p) {
		err = io.EOF
	}
	return got, err
}
