package fs

import "sync/atomic"

// A sequence is how a file was read: it distinguishes a machine from a program that copies the file.
type sequence struct {
	// requests are READs, pages what they asked for, back those that began before the end of the one before.
	requests, pages, back atomic.Uint64
	// next is the page after the last READ.
	next atomic.Uint64
}

// read notes a READ.
func (s *sequence) read(first, count uint64) {
	s.requests.Add(1)
	s.pages.Add(count)
	if s.next.Swap(first+count) > first {
		s.back.Add(1)
	}
}

// copied says that the file was read as read(2) with a buffer does it: upwards, several pages at a time.
// Some READs may overtake others.
func (s *sequence) copied() bool {
	requests := s.requests.Load()
	return s.back.Load()*20 <= requests && s.pages.Load() >= 2*requests
}
