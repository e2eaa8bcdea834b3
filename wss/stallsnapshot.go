package wss

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Interval is a stretch of time in which the guest waited for memory, or memory was fetched. It is
// half open: [Start, End). What time 0 is, is said where intervals are made.
type Interval struct {
	Start time.Duration `json:"start_ns"`
	End   time.Duration `json:"end_ns"`
}

// StallSnapshot is a StallLog at a moment. Its JSON is what stats.json shows:
//
//	{"origin":"2026-…Z", "elapsed_seconds":12.5, "outstanding":0, "requests":1675,
//	 "stall_seconds":0.41, "wait_seconds":0.55, "longest_seconds":0.012,
//	 "longest_at_seconds":0.2, "first_seconds":0.1, "last_seconds":9.8,
//	 "buckets_us":[[start,width,stalled], …]}
//
// where buckets_us has only buckets with a stall, in microseconds since the origin.
type StallSnapshot struct {
	Origin      time.Time     // time 0 of everything here
	Elapsed     time.Duration // from the origin to the snapshot
	Outstanding int           // requests not yet answered; their stall is counted up to Elapsed
	StallSummary
	Buckets []StallBucket // ascending
}

// Width is the length of the bucket.
func (b StallBucket) Width() time.Duration { return bucketWidth(b.Start) }

// Intervals returns the stalls as intervals on a clock whose time 0 is origin (for TTR: the moment
// at which the restore was asked for); what lies before it is left out. Where a bucket was stalled
// in part, the stall is taken to lie at its start: the stalled time of a window is right to within
// one bucket at each of its edges.
func (s StallSnapshot) Intervals(origin time.Time) []Interval {
	shift := s.Origin.Sub(origin)
	in := make([]Interval, 0, len(s.Buckets))
	for _, b := range s.Buckets {
		i := Interval{max(b.Start+shift, 0), b.Start + b.Stalled + shift}
		if i.End <= i.Start {
			continue
		}
		if n := len(in); n > 0 && in[n-1].End == i.Start {
			in[n-1].End = i.End
			continue
		}
		in = append(in, i)
	}
	return in
}

// stallJSON is the form of a StallSnapshot in JSON.
type stallJSON struct {
	Origin      time.Time  `json:"origin"`
	Elapsed     float64    `json:"elapsed_seconds"`
	Outstanding int        `json:"outstanding"`
	Requests    uint64     `json:"requests"`
	Stalled     float64    `json:"stall_seconds"`
	Waited      float64    `json:"wait_seconds"`
	Longest     float64    `json:"longest_seconds"`
	LongestAt   float64    `json:"longest_at_seconds"`
	First       float64    `json:"first_seconds"`
	Last        float64    `json:"last_seconds"`
	Buckets     [][3]int64 `json:"buckets_us"`
}

// MarshalJSON implements json.Marshaler.
func (s StallSnapshot) MarshalJSON() ([]byte, error) {
	j := stallJSON{
		s.Origin, s.Elapsed.Seconds(), s.Outstanding, s.Requests,
		s.Stalled.Seconds(), s.Waited.Seconds(), s.Longest.Seconds(), s.LongestAt.Seconds(),
		s.First.Seconds(), s.Last.Seconds(), make([][3]int64, len(s.Buckets)),
	}
	for i, b := range s.Buckets {
		j.Buckets[i] = [3]int64{
			b.Start.Microseconds(), b.Width().Microseconds(),
			b.Stalled.Round(time.Microsecond).Microseconds(),
		}
	}
	return json.Marshal(j)
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *StallSnapshot) UnmarshalJSON(text []byte) error {
	var j stallJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	*s = StallSnapshot{
		Origin: j.Origin, Elapsed: toDuration(j.Elapsed), Outstanding: j.Outstanding,
		StallSummary: StallSummary{
			j.Requests, toDuration(j.Stalled), toDuration(j.Waited), toDuration(j.Longest),
			toDuration(j.LongestAt), toDuration(j.First), toDuration(j.Last),
		},
		Buckets: make([]StallBucket, len(j.Buckets)),
	}
	end := time.Duration(0)
	for i, b := range j.Buckets {
		start, stalled := time.Duration(b[0])*time.Microsecond, time.Duration(b[2])*time.Microsecond
		if b[0] < 0 || b[0] > int64(MaxTime/time.Microsecond) || start < end ||
			bucketWidth(start) != time.Duration(b[1])*time.Microsecond ||
			stalled < 0 || stalled > bucketWidth(start) {
			return fmt.Errorf("stall bucket %d: %v", i, b)
		}
		s.Buckets[i] = StallBucket{start, stalled}
		end = start + bucketWidth(start)
	}
	return nil
}

// toDuration reads seconds, bounded by what a set can hold.
func toDuration(seconds float64) time.Duration {
	return time.Duration(math.Round(max(min(seconds, MaxTime.Seconds()), 0) * 1e9))
}
