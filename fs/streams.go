package fs

import "sync"

// streams finds sequential readers of one memory file, several at a time, and says what to push
// ahead of them. Its lock is held for a few comparisons, by READs that were answered.
//
// A stream counts as sequential after minStream pages. At most half of what it has read so far is
// pushed ahead of it: a wrong guess costs a third of what was right. The first page of
// each push, the marker, is left out: everything behind it will be in the page cache, so its READ
// is how the server sees that the reader has come so far, and pushes the next stretch while the
// reader goes through this one.
type streams struct {
	mu    sync.Mutex
	slots [maxStreams]stream
	clock uint64
}

type stream struct {
	next  uint64 // the page after the last READ
	mark  uint64 // the marker of the last push; 0: none yet
	ahead uint64 // the page after the last push
	score uint64 // pages that the reader has read in sequence
	used  uint64 // clock of the last hit
}

const (
	maxStreams = 8
	// minStream is in pages: 64 KiB of single-page faults in a row.
	minStream = 16
	// maxAhead is in pages: 512 KiB, and there can be two pushes ahead of a reader.
	maxAhead = 128
)

// read notes a READ of count pages, and returns the pages to push ahead; n is 0 if there are none.
func (t *streams) read(first, count, end uint64) (from, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clock++
	oldest := 0
	for i := range t.slots {
		st := &t.slots[i]
		if st.used != 0 && first >= st.next && first <= max(st.next, st.ahead) {
			return st.advance(first, count, end, t.clock)
		}
		if st.used < t.slots[oldest].used {
			oldest = i
		}
	}
	t.slots[oldest] = stream{next: first + count, score: count, used: t.clock}
	return 0, 0
}

// advance moves a stream on to the READ that continued it.
func (st *stream) advance(first, count, end, clock uint64) (from, n uint64) {
	st.score += first + count - st.next
	st.next = first + count
	st.used = clock
	if st.score < minStream {
		return 0, 0
	}
	if st.mark != 0 && st.next <= st.mark {
		return 0, 0 // the last push is still before it
	}
	from = max(st.next, st.ahead)
	to := min(from+min(st.score/2, maxAhead), end)
	if from+1 >= to {
		return 0, 0
	}
	st.mark, st.ahead = from, to
	return from + 1, to - from - 1
}

// reset forgets all readers.
func (t *streams) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.slots = [maxStreams]stream{}
}
