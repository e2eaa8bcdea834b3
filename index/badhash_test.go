package index

import (
	"context"
	"fmt"
	"io"
	"syscall"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// A bad sector in the hashes of a pack costs an export no page: those of clusters lie anywhere in the pack,
// and each of many pieces has some of the pages whose hashes are there.
func TestExportBadHashes(t *testing.T) {
	t.Run("warm", func(t *testing.T) { exportBadHashes(t, func(uint32) pack.Tier { return pack.TierKeep }) })
	t.Run("cold", func(t *testing.T) { exportBadHashes(t, allCold) })
}

func exportBadHashes(t *testing.T, tier func(uint32) pack.Tier) {
	dir, img, _ := highLatencyImage(t)
	s := openTest(t, dir, nil)
	retier(t, s, allPacks, tier)
	m := openImage(t, s, "a")
	place, _ := m.pages.place(77)
	p, err := m.acquire(place >> 24)
	if err != nil {
		t.Fatal(err)
	}
	name, slots := p.Name(), int64(p.Slots())
	p.release()
	m.Close()
	s.Close()
	s, err = Open(t.Context(), dir, OpenOptions{Log: testLog(t),
		Wrap: func(_ context.Context, b blob.Store) (blob.Store, error) {
			return badHashes{b, name, slots}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d := exportDespite(t, s, "a", img, map[string][]byte{"state": []byte("of the VMM")},
		func(uint64) bool { return true })
	if d == nil {
		t.Error("nobody said that pages could not be proved")
	}
}

// badHashes are blobs, of which a pack has a bad sector in its hashes.
type badHashes struct {
	blob.Store
	name  string
	slots int64
}

func (s badHashes) Open(ctx context.Context, name string) (blob.Object, error) {
	o, err := s.Store.Open(ctx, name)
	if err != nil || name != s.name {
		return o, err
	}
	const footer = 96
	at := o.Size() - footer - (s.slots-100)*pack.HashSize
	return badSector{o, at}, nil
}

type badSector struct {
	blob.Object
	at int64
}

func (o badSector) ReadAt(b []byte, off int64) (int, error) {
	// What is read to open a pack is there.
	if off < o.at+512 && off+int64(len(b)) > o.at && off+int64(len(b)) < o.Size() {
		return 0, fmt.Errorf("sector at %d: %w", o.at, syscall.EIO)
	}
	n, err := o.Object.ReadAt(b, off)
	if err == io.EOF && n == len(b) {
		err = nil
	}
	return n, err
}
