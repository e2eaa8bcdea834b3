package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// Images are read, in every way, while the same Store imports, removes, collects and checks: what a
// server does. Run with -race.
func TestReadsDuringWrites(t *testing.T) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(41, 1))
	garbage := randomImage(r, 1500)
	base := garbage.change(r, 200)
	want := base.bytes()
	s := openTest(t, t.TempDir()+"/store", nil)
	mustImport(t, s, "garbage", writeSource(t, garbage.bytes(), nil), nil)
	files := map[string][]byte{"state": make([]byte, 1000)}
	mustImport(t, s, "base", writeSource(t, want, files), []Run{{50, 600}})
	m := openImage(t, s, "base")

	var stop atomic.Bool
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() { readUntil(t, m, want, uint64(i), &stop) })
	}
	readers.Go(func() {
		for !stop.Load() {
			other := openImage(t, s, "base")
			if err := other.ReadRange(0, make([]byte, 64*PageSize)); err != nil {
				t.Error(err)
			}
			other.Close()
			if _, err := s.ReadFile(ctx, "base", "state"); err != nil {
				t.Error(err)
			}
			if _, err := s.List(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	rewritten, repacked := 0, 0
	for i := range fewer(4, 2) {
		name := fmt.Sprint("n", i)
		img := base.change(r, 100)
		mustImport(t, s, name, writeSource(t, img.bytes(), nil), nil)
		if _, err := s.SetWorkingSet(ctx, "base", []byte(name), []Run{{uint64(i * 10), 300}}); err != nil {
			t.Error(err)
		}
		if err := s.Remove(ctx, name); err != nil {
			t.Error(err)
		}
		if i == 1 {
			// It shares about half of its pack with base: that is compacted while base is read.
			if err := s.Remove(ctx, "garbage"); err != nil {
				t.Error(err)
			}
		}
		rep, err := s.GC(ctx, GCOptions{})
		if err != nil {
			t.Error(err)
		}
		rewritten += rep.RewrittenPacks
		did, err := s.Repack(ctx, RepackOptions{})
		if err != nil {
			t.Error(err)
		}
		repacked += did.Repacked
		checkClean(t, s, i%2 == 0)
	}
	if rewritten == 0 || repacked == 0 {
		t.Errorf("%d packs were compacted, %d repacked", rewritten, repacked)
	}
	stop.Store(true)
	readers.Wait()
	sameImage(t, m, want)
	sameWorkingSet(t, m, want, []Run{{50, 600}})
	if err := s.Remove(ctx, "base"); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	m.Close()
	if err := s.Remove(ctx, "base"); err != nil {
		t.Error(err)
	}
	if _, err := s.GC(ctx, GCOptions{}); err != nil {
		t.Error(err)
	}
	if left := blobFiles(t, s.Dir()); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func readUntil(t *testing.T, m *Image, want []byte, seed uint64, stop *atomic.Bool) {
	r := rand.New(rand.NewPCG(42, seed))
	page := make([]byte, PageSize)
	some := make([]byte, 32*PageSize)
	var p Piece
	for !stop.Load() {
		gfn := r.Uint64N(m.Pages() - 32)
		if err := m.ReadPage(gfn, page); err != nil || !bytes.Equal(page, want[gfn*PageSize:][:PageSize]) {
			t.Errorf("page %d: %v", gfn, err)
			return
		}
		if err := m.ReadRange(gfn, some); err != nil || !bytes.Equal(some, want[gfn*PageSize:][:len(some)]) {
			t.Errorf("pages from %d on: %v", gfn, err)
			return
		}
		if b, ok := m.Block(gfn); ok {
			if err := m.ReadBlock(b, &p); err != nil {
				t.Errorf("block of page %d: %v", gfn, err)
				return
			}
			comparePiece(t, &p, want, map[uint64]int{})
		}
		feed := m.WorkingSetFeed()
		if err := ReadPiece(context.Background(), feed, r.IntN(feed.Len()), &p); err != nil {
			t.Error(err)
			return
		}
		comparePiece(t, &p, want, map[uint64]int{})
	}
}

// A store that is closed under open images says so, and they fail from then on: no panic, no wrong
// bytes.
func TestCloseUnderReads(t *testing.T) {
	r := rand.New(rand.NewPCG(43, 1))
	want := randomImage(r, 500).bytes()
	s := openTest(t, t.TempDir()+"/store", nil)
	mustImport(t, s, "one", writeSource(t, want, nil), nil)
	m := openImage(t, s, "one")
	var started, readers sync.WaitGroup
	for range 4 {
		started.Add(1)
		readers.Go(func() {
			got := make([]byte, len(want))
			for i := 0; ; i++ {
				err := m.ReadRange(0, got)
				if i == 0 {
					started.Done()
				}
				if err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
				if !bytes.Equal(got, want) {
					t.Error("wrong bytes")
					return
				}
			}
		})
	}
	started.Wait()
	if err := s.Close(); err == nil {
		t.Error("closing a store with open images is not an error")
	}
	readers.Wait()
	if _, err := s.OpenImage(context.Background(), "one"); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	m.Close()
}
