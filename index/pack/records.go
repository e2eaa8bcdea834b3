package pack

import (
	"sync"

	"github.com/thawfs/thaw/index/blob"
)

// RecordReader reads records of one pack that are wanted one after another, as the page map of an
// image is. On a high-latency medium it reads ahead: records lie side by side, at the end of a pack,
// and the next ones come with the first. Its methods may be called by many goroutines at once.
type RecordReader struct {
	r      *Reader
	ahead  int // bytes that are read at once; 0: those asked for
	mu     sync.Mutex
	ranges [4]aheadRange // read last; several, for goroutines in different places
	oldest int
}

type aheadRange struct {
	off int64
	b   []byte
}

// maxAhead is how much is read at once at most, in bytes: a read of that much takes a slow disk as
// long again as getting there.
const maxAhead = 1 << 20

// NewRecordReader returns a reader for records of a pack, which must stay open meanwhile.
func (r *Reader) NewRecordReader() *RecordReader {
	rr := &RecordReader{r: r}
	if m := blob.MediumOf(r.obj); m.HighLatency() {
		const bandwidth = 100 << 20 // of whatever has such a latency, about
		rr.ahead = min(maxAhead, int(m.Latency.Seconds()*bandwidth))
	}
	return rr
}

// ReadRecord is Reader.ReadRecord.
func (rr *RecordReader) ReadRecord(i int, dst []byte) ([]byte, error) {
	if rr.ahead == 0 {
		return rr.r.ReadRecord(i, dst)
	}
	return rr.r.readRecord(rr, i, dst)
}

// read implements stored.
func (rr *RecordReader) read(b []byte, off int64) error {
	rr.mu.Lock()
	defer rr.mu.Unlock()
	for _, w := range rr.ranges {
		if off >= w.off && off+int64(len(b)) <= w.off+int64(len(w.b)) {
			copy(b, w.b[off-w.off:])
			return nil
		}
	}
	// Records end where the directory begins, at the latest.
	n := min(max(int64(rr.ahead), int64(len(b))), max(int64(rr.r.foot.dir.off)-off, int64(len(b))))
	w := &rr.ranges[rr.oldest]
	rr.oldest = (rr.oldest + 1) % len(rr.ranges)
	*w = aheadRange{off: off, b: grown(w.b, int(n))}
	if err := rr.r.read(w.b, off); err != nil {
		w.b = nil
		return err
	}
	copy(b, w.b)
	return nil
}
