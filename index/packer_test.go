package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// stalledBlobs is a store whose disk takes nothing until go is closed.
type stalledBlobs struct {
	blob.Store
	goOn chan struct{}
}

func (s stalledBlobs) Create(ctx context.Context, name string) (blob.Writer, error) {
	select {
	case <-s.goOn:
		return s.Store.Create(ctx, name)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestPackerWhileTheDiskStalls: of an image of which few pages are new, one in each chunk, the blocks that
// wait hold few chunks. What a chunk's buffer has next does not get into them.
func TestPackerWhileTheDiskStalls(t *testing.T) {
	s := openTest(t, t.TempDir(), nil)
	number, err := s.alloc.take(t.Context()) // and the numbers after it are reserved
	if err != nil {
		t.Fatal(err)
	}
	goOn := make(chan struct{})
	s.blobs = stalledBlobs{s.blobs, goOn}
	g := newTasks(t.Context())
	defer g.wait()
	defer g.cancel(nil)
	k, err := newPacker(s, g, ProfileFast)
	if err != nil {
		t.Fatal(err)
	}
	const pages = blocksAhead * pack.BlockPages // so many do not wait
	page := func(n int) []byte {
		return bytes.Repeat(binary.LittleEndian.AppendUint64(nil, uint64(n)+1), PageSize/8)
	}
	var pool sync.Pool
	hasher := pack.NewHasher(s.key)
	chunks := make([]*chunk, pages)
	for n := range chunks {
		c := newChunk(&pool)
		c.buf = page(n) // of which only the first page is used
		c.hashes[0] = hasher.Sum(c.buf)
		if ref, err := k.add(c, 0); err != nil || ref != uint64(pack.MakeRef(number+1, uint32(n))) {
			t.Fatalf("page %d is at %x, %v", n, ref, err)
		}
		if chunks[n] = c; c.refs.Add(-1) == 0 {
			clear(c.buf) // it is used again
		}
	}
	held := 0
	for _, c := range chunks {
		if c.refs.Load() > 0 {
			held++
		}
	}
	if held > blocksAhead {
		t.Errorf("%d chunks are held by %d blocks", held, blocksAhead)
	}
	close(goOn)
	if err := k.drain(); err != nil {
		t.Fatal(err)
	}
	if err := k.end(); err != nil {
		t.Fatal(err)
	}
	p, done, err := s.packs.use(t.Context(), number+1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	got := make([]byte, PageSize)
	for n := range pages {
		if err := p.ReadPage(uint32(n), got); err != nil || !bytes.Equal(got, page(n)) {
			t.Fatalf("page %d: %v", n, err)
		}
	}
}
