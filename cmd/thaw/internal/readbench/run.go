package readbench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxNamed is the number of bad blocks that a result names.
const maxNamed = 10

// Result is what came of a run.
type Result struct {
	Config   Config
	FileSize int64
	Elapsed  time.Duration
	Blocks   uint64 // read
	Bytes    int64  // read
	Latency  Histogram

	Verified   uint64  // blocks compared
	Mismatches uint64  // of these, blocks that differ
	BadAt      []int64 // offsets of the first bytes that differ, a few
	Errors     uint64  // blocks that could not be read (ContinueOnError)
	FirstError error   // the first of these

	// MajorFaults are the pages of the mapping that were not in the page cache, MinorFaults those
	// that were (up to 16 mapped by one fault); of the whole process.
	MajorFaults, MinorFaults int64
}

// BytesPerSecond is the throughput of the whole run, verification included.
func (r *Result) BytesPerSecond() float64 { return perSecond(float64(r.Bytes), r.Elapsed) }

// IOPS is the number of blocks per second.
func (r *Result) IOPS() float64 { return perSecond(float64(r.Blocks), r.Elapsed) }

func perSecond(n float64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return n / d.Seconds()
}

// bench is a run.
type bench struct {
	Config
	engine       engine
	source       *os.File // nil: nothing is compared
	offset, size int64    // the part that is read
	deadline     time.Time

	done atomic.Int64 // bytes read
	last atomic.Int64 // when a read came to an end, in Unix nanoseconds
}

// Run reads as the configuration says. The result is valid also where an error ended the run early;
// it is nil if the run could not begin. A run ends when all is read, when its time is over, at the
// first error (but for ContinueOnError), or with ctx (whose error it then returns); reads that the
// kernel has begun are waited for.
func Run(ctx context.Context, c Config) (*Result, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	e, fileSize, err := openEngine(&c)
	if err != nil {
		return nil, err
	}
	defer e.close()
	b := &bench{Config: c, engine: e}
	if b.offset, b.size, err = c.part(fileSize); err != nil {
		return nil, fmt.Errorf("%s: %w", c.File, err)
	}
	if c.VerifyFile != "" {
		if b.source, err = openSource(c.VerifyFile, fileSize); err != nil {
			return nil, err
		}
		defer b.source.Close()
	}
	before := rusage()
	start := time.Now()
	b.last.Store(start.UnixNano())
	if c.Runtime > 0 {
		b.deadline = start.Add(c.Runtime)
	}
	r, err := b.jobs(ctx)
	r.Config, r.FileSize, r.Elapsed = c, fileSize, time.Since(start)
	after := rusage()
	r.MajorFaults, r.MinorFaults = after.Majflt-before.Majflt, after.Minflt-before.Minflt
	return r, err
}

// openSource opens what is compared with; it must be as large as what is read.
func openSource(path string, size int64) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != size {
		err = &ConfigError{fmt.Sprintf("%s has %d bytes, what is verified has %d",
			path, info.Size(), size)}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func rusage() (u unix.Rusage) {
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail with these arguments
	return u
}

// jobs runs all workers and puts together what they found.
func (b *bench) jobs(ctx context.Context) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	total := &Result{}
	var mu sync.Mutex // guards total
	var wg, watch sync.WaitGroup
	for n := range b.NumJobs {
		j := b.newJob(n)
		for range b.IODepth {
			wg.Go(func() {
				r, err := b.work(ctx, j)
				mu.Lock()
				defer mu.Unlock()
				total.merge(r)
				if err != nil {
					cancel(err)
				}
			})
		}
	}
	over := make(chan struct{})
	if b.Progress != nil {
		watch.Go(func() { b.watch(over) })
	}
	wg.Wait()
	close(over)
	watch.Wait()
	return total, context.Cause(ctx)
}

// watch reports the progress until the run is over.
func (b *bench) watch(over <-chan struct{}) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	total := int64(0)
	if !b.TimeBased {
		total = b.perJob() * int64(b.NumJobs)
	}
	for {
		select {
		case <-over:
			return
		case now := <-tick.C:
			b.Progress(b.done.Load(), total, now.Sub(time.Unix(0, b.last.Load())))
		}
	}
}

func (b *bench) perJob() int64 {
	if b.IOSize > 0 {
		return b.IOSize
	}
	return b.size
}

// job is one sequence of blocks; its workers share it.
type job struct {
	mu      sync.Mutex
	pattern pattern
	left    int64 // bytes to be read yet; below 0: no end
}

func (b *bench) newJob(n int) *job {
	blocks := uint64((b.size + int64(b.BS) - 1) / int64(b.BS))
	j := &job{pattern: newPattern(&b.Config, blocks, n), left: b.perJob()}
	if b.TimeBased {
		j.left = -1
	}
	return j
}

// next is the next block of a job, which may be cut short by the end of the part.
func (b *bench) next(j *job) (off int64, n int, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.left == 0 {
		return 0, 0, false
	}
	at := int64(j.pattern.next()) * int64(b.BS)
	length := min(int64(b.BS), b.size-at)
	if j.left > 0 {
		j.left = max(j.left-length, 0)
	}
	return b.offset + at, int(length), true
}

// work reads blocks of a job until there are no more.
func (b *bench) work(ctx context.Context, j *job) (*Result, error) {
	r := &Result{}
	buf, want := make([]byte, b.BS), []byte(nil)
	if b.source != nil {
		want = make([]byte, b.BS)
	}
	for ctx.Err() == nil {
		off, n, ok := b.next(j)
		if !ok {
			break
		}
		start := time.Now()
		err := b.engine.read(off, buf[:n])
		end := time.Now()
		if err == nil {
			r.Latency.Add(end.Sub(start))
			r.Blocks++
			r.Bytes += int64(n)
			if b.source != nil {
				err = b.verify(r, off, buf[:n], want[:n])
			}
		}
		if err = r.failed(err, b.ContinueOnError); err != nil {
			return r, err
		}
		b.done.Add(int64(n))
		b.last.Store(end.UnixNano())
		if !b.deadline.IsZero() && end.After(b.deadline) {
			break
		}
	}
	return r, nil
}

// failed counts a failed read, or returns its error if the run is to end.
func (r *Result) failed(err error, goOn bool) error {
	var read *ReadError
	if err == nil || !goOn || !errors.As(err, &read) {
		return err
	}
	if r.Errors++; r.FirstError == nil {
		r.FirstError = err
	}
	return nil
}

// verify compares a block with the source.
func (b *bench) verify(r *Result, off int64, got, want []byte) error {
	if err := b.engine.data(off, got); err != nil {
		return err
	}
	if err := readFull(b.source, off, want); err != nil {
		return fmt.Errorf("read %s at %d: %w", b.VerifyFile, off, errno(err))
	}
	r.Verified++
	if bytes.Equal(got, want) {
		return nil
	}
	r.Mismatches++
	for i := range got {
		if got[i] != want[i] && len(r.BadAt) < maxNamed {
			r.BadAt = append(r.BadAt, off+int64(i))
			break
		}
	}
	return nil
}

// merge adds what another worker found.
func (r *Result) merge(o *Result) {
	r.Blocks += o.Blocks
	r.Bytes += o.Bytes
	r.Latency.Merge(&o.Latency)
	r.Verified += o.Verified
	r.Mismatches += o.Mismatches
	r.BadAt = append(r.BadAt, o.BadAt[:min(len(o.BadAt), maxNamed-len(r.BadAt))]...)
	r.Errors += o.Errors
	if r.FirstError == nil {
		r.FirstError = o.FirstError
	}
}
