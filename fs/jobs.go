package fs

import "sync"

// jobs are what READs have handed to the pushers. Each memory file has a queue of its own, and they take
// turns, so that a machine that asks for much does not hold up the others. A file may have as many jobs
// waiting as there is room left: one alone half of all, two a third each, and there is always room for one
// that has none.
//
// The lock is held for a few assignments. Nothing is allocated after the start.
type jobs struct {
	mu    sync.Mutex
	nodes [queueLen]queuedJob
	free  *queuedJob  // guarded by mu, as all below
	left  int         // how many are free
	turn  *memoryFile // the file whose turn is next, and the last one behind it; nil: nothing waits
	last  *memoryFile
	// ready has an element for each job.
	ready chan struct{}
}

// queueLen is enough for the faults of a burst, and short enough that a push is still useful.
const queueLen = 512

type queuedJob struct {
	job
	next *queuedJob
}

// A jobList is the queue of one memory file. All of it is guarded by jobs.mu.
type jobList struct {
	first, last *queuedJob
	n           int
	behind      *memoryFile // whose turn comes after this file's
}

func newJobs() *jobs {
	q := &jobs{ready: make(chan struct{}, queueLen)}
	for i := range q.nodes {
		q.giveLocked(&q.nodes[i])
	}
	return q
}

func (q *jobs) giveLocked(x *queuedJob) {
	*x = queuedJob{next: q.free} // what it pointed to may go
	q.free = x
	q.left++
}

// add queues a job; false if there is no room for one of its file.
func (q *jobs) add(j job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := &j.m.jobs
	if l.n >= q.left {
		return false
	}
	x := q.free
	q.free = x.next
	q.left--
	x.job, x.next = j, nil
	if l.n == 0 {
		l.first = x
		q.lineUpLocked(j.m)
	} else {
		l.last.next = x
	}
	l.last = x
	l.n++
	q.ready <- struct{}{} // there is room: it has one for each node
	return true
}

// lineUpLocked puts a file behind all others that wait.
func (q *jobs) lineUpLocked(m *memoryFile) {
	if q.turn == nil {
		q.turn = m
	} else {
		q.last.jobs.behind = m
	}
	q.last = m
}

// take returns the next job. It is called by who has got an element of ready.
func (q *jobs) take() job {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.turn
	l := &m.jobs
	q.turn, l.behind = l.behind, nil
	x := l.first
	l.first = x.next
	if l.n--; l.n > 0 {
		q.lineUpLocked(m)
	} else {
		l.last = nil
	}
	j := x.job
	q.giveLocked(x)
	return j
}
