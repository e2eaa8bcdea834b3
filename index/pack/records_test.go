package pack

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
)

// countedObject is a blob on a medium, and counts its reads.
type countedObject struct {
	blob.Object
	medium blob.Medium

	mu           sync.Mutex
	reads, bytes int
}

func (o *countedObject) Medium() blob.Medium { return o.medium }

func (o *countedObject) ReadAt(p []byte, off int64) (int, error) {
	o.mu.Lock()
	o.reads++
	o.bytes += len(p)
	o.mu.Unlock()
	return o.Object.ReadAt(p, off)
}

// TestRecordReader: records in their order are read by the megabyte on a high-latency medium, and one
// by one where it is not; in any order, and by many goroutines, they are right.
func TestRecordReader(t *testing.T) {
	store := blobtest.NewMem()
	w := mustWriter(t, store, 7, 0)
	rng := rand.New(rand.NewPCG(4, 4))
	var want [][]byte
	for range 900 {
		b := make([]byte, 1+rng.IntN(8000))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if _, err := w.AppendRecord(1, b); err != nil {
			t.Fatal(err)
		}
		want = append(want, b)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		medium blob.Medium
		most   int // reads
	}{
		"native": {blob.Medium{}, 900},
		"hdd":    {blob.Medium{Latency: 10 * time.Millisecond}, 5},
		"nfs":    {blob.Medium{Latency: 500 * time.Microsecond}, 100},
	} {
		t.Run(name, func(t *testing.T) {
			obj, err := store.Open(t.Context(), Name(7, 0))
			if err != nil {
				t.Fatal(err)
			}
			o := &countedObject{Object: obj, medium: c.medium}
			r, err := Open(o, "test", mustDecoder(t))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			check := func(rr *RecordReader, i int) {
				if got, err := rr.ReadRecord(i, nil); err != nil || !bytes.Equal(got, want[i]) {
					t.Errorf("record %d: %v", i, err)
				}
			}
			o.reads, o.bytes = 0, 0
			rr := r.NewRecordReader()
			for i := range want {
				check(rr, i)
			}
			if o.reads > c.most || int64(o.bytes) > r.Size()+int64(o.reads)*8000 {
				t.Errorf("%d reads of %d bytes, of a pack of %d", o.reads, o.bytes, r.Size())
			}
			var wg sync.WaitGroup
			for g := range 4 {
				wg.Go(func() {
					for _, i := range rand.New(rand.NewPCG(5, uint64(g))).Perm(len(want))[:200] {
						check(rr, i)
					}
				})
			}
			wg.Wait()
			if _, err := rr.ReadRecord(len(want), nil); err == nil {
				t.Error("a record behind the last can be read")
			}
		})
	}
}
