package wss

import "time"

// KeepAt records a stall that began and ended at times of the test.
func (l *StallLog) KeepAt(start, end time.Duration) {
	l.begin(start)
	l.end(end)
}

// SnapshotAt is Snapshot at a time of the test.
func (l *StallLog) SnapshotAt(now time.Duration) StallSnapshot { return l.snapshot(now) }
