package main

import (
	"fmt"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/readbench"
)

// benchJSON is what `thaw bench --json` prints.
type benchJSON struct {
	File           string       `json:"file"`
	FileSize       int64        `json:"file_size"`
	RW             string       `json:"rw"`
	BS             int          `json:"bs"`
	Engine         string       `json:"ioengine"`
	NumJobs        int          `json:"numjobs"`
	IODepth        int          `json:"iodepth"`
	Seconds        float64      `json:"elapsed_seconds"`
	Blocks         uint64       `json:"blocks"`
	Bytes          int64        `json:"bytes"`
	IOPS           float64      `json:"iops"`
	BytesPerSecond float64      `json:"bytes_per_second"`
	Latency        benchLatency `json:"latency_us"`
	Verify         string       `json:"verify,omitempty"`
	Verified       uint64       `json:"verified_blocks"`
	Mismatches     uint64       `json:"mismatched_blocks"`
	MismatchAt     []int64      `json:"mismatched_offsets,omitempty"`
	Errors         uint64       `json:"failed_blocks"`
	MajorFaults    int64        `json:"major_faults"`
	MinorFaults    int64        `json:"minor_faults"`
}

// benchLatency is in microseconds.
type benchLatency struct {
	Min  float64 `json:"min"`
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

func newBenchJSON(r *readbench.Result) benchJSON {
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	c, l := &r.Config, &r.Latency
	return benchJSON{
		File: c.File, FileSize: r.FileSize, RW: c.RW, BS: c.BS, Engine: c.Engine,
		NumJobs: c.NumJobs, IODepth: c.IODepth,
		Seconds: r.Elapsed.Seconds(), Blocks: r.Blocks, Bytes: r.Bytes,
		IOPS: r.IOPS(), BytesPerSecond: r.BytesPerSecond(),
		Latency: benchLatency{
			us(l.Min()), us(l.Mean()), us(l.Percentile(50)), us(l.Percentile(90)),
			us(l.Percentile(99)), us(l.Percentile(99.9)), us(l.Max()),
		},
		Verify: c.VerifyFile, Verified: r.Verified, Mismatches: r.Mismatches, MismatchAt: r.BadAt,
		Errors: r.Errors, MajorFaults: r.MajorFaults, MinorFaults: r.MinorFaults,
	}
}

// showBench prints the result of a run.
func (a *app) showBench(r *readbench.Result) error {
	if a.json {
		return a.printJSON(newBenchJSON(r))
	}
	c, l := &r.Config, &r.Latency
	jobs := fmt.Sprintf("%d job", c.NumJobs)
	if c.NumJobs > 1 {
		jobs += "s"
	}
	if c.IODepth > 1 {
		jobs += fmt.Sprintf(" of depth %d", c.IODepth)
	}
	a.printf("%s of %s, bs %s, %s, %s\n", c.RW, c.File, size(int64(c.BS)), c.Engine, jobs)
	a.printf("throughput  %s/s, %s reads/s (%s in %s)\n", size(int64(r.BytesPerSecond())),
		count(int64(r.IOPS())), size(r.Bytes), seconds(r.Elapsed))
	a.printf("latency     p50 %s   p90 %s   p99 %s   p99.9 %s   (min %s, mean %s, max %s)\n",
		micros(l.Percentile(50)), micros(l.Percentile(90)), micros(l.Percentile(99)),
		micros(l.Percentile(99.9)), micros(l.Min()), micros(l.Mean()), micros(l.Max()))
	if c.Engine == readbench.Mmap {
		a.printf("faults      %s major (fetched), %s minor (from the page cache)\n", count(r.MajorFaults),
			count(r.MinorFaults))
	}
	if c.VerifyFile != "" {
		a.printf("verified    %s blocks against %s, %s differ\n", count(r.Verified), c.VerifyFile,
			count(r.Mismatches))
	}
	if r.Errors > 0 {
		a.printf("failed      %s blocks\n", count(r.Errors))
	}
	return nil
}

// micros prints a latency: "0.41 us", "23.5 us", "1,204 us".
func micros(d time.Duration) string {
	us := float64(d.Nanoseconds()) / 1e3
	switch {
	case us < 10:
		return fmt.Sprintf("%.2f us", us)
	case us < 1000:
		return fmt.Sprintf("%.1f us", us)
	default:
		return count(int64(us)) + " us"
	}
}
