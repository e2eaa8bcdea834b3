package wss

import (
	"math/bits"
	"sync"
	"time"
)

// StallLog records when requests for memory were outstanding: Begin when one comes in, End when it
// is answered. What it keeps is the union of them all (time in which at least one was
// outstanding), in buckets of a quarter of a millisecond and more:
//
//   - the first 8.2 s are kept in buckets of 0.25 ms; from there on buckets are between 1/32768 and
//     1/16384 of the time since the origin, so that the restore is sharp however long the machine
//     then runs: of the 5 ms that TTR(100 ms, 95 %) allows, a bucket at each edge is little;
//   - only buckets that have a stall are kept, 16 bytes each. An octave of time has at most 16,384
//     of them: a log is bounded by 1.3 MiB for a minute and 5 MiB for 20 days of stalls.
//
// Begin and End take a lock for some tens of nanoseconds and allocate nothing but, once in up
// to 256 buckets, the next 4 KiB. All methods are safe for concurrent use.
type StallLog struct {
	origin time.Time

	mu      sync.Mutex
	last    time.Duration // time of the last Begin or End
	stall   time.Duration // start of the stall that goes on while open > 0
	open    int           // requests outstanding
	summary StallSummary
	chunks  [][]StallBucket
}

// StallSummary is what a StallLog counts in addition to the buckets, exact to the nanosecond.
type StallSummary struct {
	Requests  uint64        // requests begun
	Stalled   time.Duration // time in which at least one request was outstanding
	Waited    time.Duration // sum of the requests' own times: above Stalled if they overlapped
	Longest   time.Duration // longest unbroken stall
	LongestAt time.Duration // its start; meaningless without requests
	First     time.Duration // start of the first stall; meaningless without requests
	Last      time.Duration // end of the last stall; meaningless without requests
}

// StallBucket says how much of [Start, Start+Width) was stalled.
type StallBucket struct {
	Start   time.Duration
	Stalled time.Duration
}

// chunkLen is the number of buckets that are allocated together: 4 KiB. A log begins with less, since
// there may be many of them with a stall or two.
const (
	chunkLen = 256
	firstLen = 4
)

// bucketAt returns the start and the width of the bucket that t lies in.
func bucketAt(t time.Duration) (start, width time.Duration) {
	width = bucketWidth(t)
	return t / width * width, width
}

// leastWidth is that of the first buckets.
const leastWidth = 250 * time.Microsecond

// bucketWidth is leastWidth for the first 2^15 of them, and twice as much in each octave after.
func bucketWidth(t time.Duration) time.Duration {
	octave := max(bits.Len64(uint64(t/leastWidth))-15, 0)
	return leastWidth << octave
}

// NewStallLog returns an empty log whose time 0 is origin.
func NewStallLog(origin time.Time) *StallLog { return &StallLog{origin: origin} }

// Begin says that a request came in.
func (l *StallLog) Begin() { l.BeginAt(time.Now()) }

// BeginAt is Begin for a caller that has just looked at the clock.
func (l *StallLog) BeginAt(now time.Time) {
	l.mu.Lock()
	l.begin(l.at(now))
	l.mu.Unlock()
}

// End says that a request was answered. There must have been a Begin for it.
func (l *StallLog) End() { l.EndAt(time.Now()) }

// EndAt is End for a caller that has just looked at the clock.
func (l *StallLog) EndAt(now time.Time) {
	l.mu.Lock()
	l.end(l.at(now))
	l.mu.Unlock()
}

// Stalled is the time until now in which at least one request was outstanding.
func (l *StallLog) Stalled(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == 0 {
		return l.summary.Stalled
	}
	return l.summary.Stalled + l.at(now) - l.stall
}

// Reset forgets everything and makes origin time 0. Requests that are outstanding go on: they count
// from origin.
func (l *StallLog) Reset(origin time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.origin = origin
	l.last, l.stall, l.chunks = 0, 0, nil
	l.summary = StallSummary{Requests: uint64(l.open)}
}

// at is a time since the origin, never going back: requests keep the order in which they are noted, though
// their clocks may have been read in another, and a time before the origin is the origin.
func (l *StallLog) at(now time.Time) time.Duration { return max(now.Sub(l.origin), l.last) }

// begin is Begin at a time. l.mu is held; at is not before l.last.
func (l *StallLog) begin(at time.Duration) {
	s := &l.summary
	s.Waited += time.Duration(l.open) * (at - l.last)
	l.last = at
	if l.open++; l.open == 1 {
		if s.Requests == 0 {
			s.First = at
		}
		l.stall = at
	}
	s.Requests++
}

// end is End at a time, as begin is.
func (l *StallLog) end(at time.Duration) {
	if l.open == 0 {
		panic("wss: StallLog.End without Begin")
	}
	s := &l.summary
	s.Waited += time.Duration(l.open) * (at - l.last)
	l.last = at
	if l.open--; l.open == 0 {
		s.add(l.stall, at)
		l.keep(l.stall, at)
	}
}

// add counts a stall that has ended, or been looked at.
func (s *StallSummary) add(start, end time.Duration) {
	s.Stalled += end - start
	if end-start > s.Longest {
		s.Longest, s.LongestAt = end-start, start
	}
	s.Last = end
}

// keep puts a stall into its buckets. l.mu is held.
func (l *StallLog) keep(start, end time.Duration) {
	for start < end {
		at, width := bucketAt(start)
		n := min(end, at+width) - start
		l.bucket(at).Stalled += n
		start += n
	}
}

// bucket is the last bucket if it begins at that time, or a new one. l.mu is held.
func (l *StallLog) bucket(at time.Duration) *StallBucket {
	if n := len(l.chunks); n > 0 {
		c := l.chunks[n-1]
		if last := &c[len(c)-1]; last.Start == at {
			return last
		}
		if len(c) < cap(c) {
			l.chunks[n-1] = append(c, StallBucket{Start: at})
			return &l.chunks[n-1][len(c)]
		}
	}
	room := min(firstLen<<(2*min(len(l.chunks), 4)), chunkLen)
	l.chunks = append(l.chunks, append(make([]StallBucket, 0, room), StallBucket{Start: at}))
	return &l.chunks[len(l.chunks)-1][0]
}

// Snapshot returns what was recorded so far; a stall that goes on counts up to now.
func (l *StallLog) Snapshot() StallSnapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.snapshot(l.at(time.Now()))
}

// snapshot is Snapshot at a time. l.mu is held.
func (l *StallLog) snapshot(now time.Duration) StallSnapshot {
	s := StallSnapshot{Origin: l.origin, Elapsed: now, Outstanding: l.open, StallSummary: l.summary}
	n := 0
	for _, c := range l.chunks {
		n += len(c)
	}
	s.Buckets = make([]StallBucket, 0, n+1)
	for _, c := range l.chunks {
		s.Buckets = append(s.Buckets, c...)
	}
	if l.open > 0 {
		s.Waited += time.Duration(l.open) * (now - l.last)
		s.add(l.stall, now)
		s.keepOpen(l.stall, now)
	}
	return s
}

// keepOpen puts the stall that goes on into the copied buckets.
func (s *StallSnapshot) keepOpen(start, end time.Duration) {
	for start < end {
		at, width := bucketAt(start)
		n := min(end, at+width) - start
		if i := len(s.Buckets); i == 0 || s.Buckets[i-1].Start != at {
			s.Buckets = append(s.Buckets, StallBucket{Start: at})
		}
		s.Buckets[len(s.Buckets)-1].Stalled += n
		start += n
	}
}
