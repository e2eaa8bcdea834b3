package readbench

import (
	"math/bits"
	"time"
)

// subBits is the number of bits that a bucket keeps of a value: steps of 1/64, 1.6 %.
const subBits = 6

// Histogram counts durations, exactly below 128 ns and in steps of 1.6 % above. The zero value is
// empty; it is 30 KiB. Not safe for concurrent use.
type Histogram struct {
	count    uint64
	sum      time.Duration
	min, max time.Duration
	buckets  [(64 - subBits) << subBits]uint64
}

// bucketOf is the number of the bucket that d falls into.
func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 1<<(subBits+1) {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift<<subBits + int(v>>shift)
}

// bucketEnd is the greatest value in a bucket.
func bucketEnd(i int) time.Duration {
	if i < 1<<(subBits+1) {
		return time.Duration(i)
	}
	shift := i>>subBits - 1
	return time.Duration(uint64(i&(1<<subBits-1)|1<<subBits)<<shift + 1<<shift - 1)
}

// Add counts a duration; a negative one counts as 0.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	if h.count == 0 || d < h.min {
		h.min = d
	}
	h.max = max(h.max, d)
	h.count++
	h.sum += d
	h.buckets[bucketOf(d)]++
}

// Merge adds all that another histogram has counted.
func (h *Histogram) Merge(o *Histogram) {
	if o.count == 0 {
		return
	}
	if h.count == 0 || o.min < h.min {
		h.min = o.min
	}
	h.max = max(h.max, o.max)
	h.count += o.count
	h.sum += o.sum
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
}

// Count is how many durations were counted.
func (h *Histogram) Count() uint64 { return h.count }

// Min, Max and Mean are exact; 0 if nothing was counted.
func (h *Histogram) Min() time.Duration { return h.min }

// Max is the longest duration.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean is the average duration.
func (h *Histogram) Mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return h.sum / time.Duration(h.count)
}

// Percentile is the duration that p per cent of those counted do not exceed, at most 1.6 % too
// long; 0 if nothing was counted.
func (h *Histogram) Percentile(p float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := uint64(p / 100 * float64(h.count))
	if float64(rank) < p/100*float64(h.count) || rank == 0 {
		rank++
	}
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; seen >= rank {
			return max(min(bucketEnd(i), h.max), h.min)
		}
	}
	return h.max
}
