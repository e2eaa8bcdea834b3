// Package verify reads a file, above all the memory of a checkpoint on a mount, and compares every
// page with the same page of another file, for example the image that was imported. It is what
// `thaw bench` runs. fio measures reads in many more patterns, but it can only verify files that it
// wrote itself.
//
// # Ways to read
//
// [Read] is pread(2). [Mmap] takes page faults in a private mapping, as a virtual machine does. In
// Go a page fault needs care. A goroutine that touches a page of a FUSE file is stuck in user mode
// until the page comes: the garbage collector cannot stop it, so that the whole program waits for
// the server; if the server waits for this program in turn, for ever. And when the server dies, the
// touch is a SIGBUS. So no Go code ever touches the mapping here: the kernel copies the bytes out of
// it by process_vm_readv(2), which takes the same fault as a system call. The scheduler knows that
// the thread is away, and what cannot be read is an error (EFAULT).
package verify

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// Values of Config.
const (
	Mmap = "mmap"
	Read = "read"

	Sequential = "sequential" // block after block
	Random     = "random"     // each page once, in random order
)

// Config says what to read and how.
type Config struct {
	File    string
	Against string // the file that File is compared with
	By      string // Mmap or Read
	Order   string // Sequential or Random
	Seed    uint64 // of the random order

	Progress func(done, total int64) // nil, or called after each block
	Quiet    func()                  // nil, or called when no read has ended for QuietTime
}

// PageSize is the unit in which differences are counted, and that of a random order.
const PageSize = 4096

// sequentialBlock is how much is read at once in sequential order: more than a READ can be.
const sequentialBlock = 1 << 20

// maxNamed is the number of differences that a result names.
const maxNamed = 10

// QuietTime is how long a read takes before somebody should be told.
const QuietTime = 10 * time.Second

// Result is the result of a run.
type Result struct {
	Elapsed time.Duration
	Pages   int64   // compared
	Differ  int64   // of these
	At      []int64 // offsets of the first bytes that differ, of a few pages
}

// Run compares all of the file. It ends when everything is read, at the first error, or with ctx;
// a read that the kernel has begun is waited for. The result is nil if the run could not begin.
func Run(ctx context.Context, c Config) (*Result, error) {
	switch {
	case c.Against == "":
		return nil, wrong("say with --against which file it is compared with")
	case c.By != Mmap && c.By != Read:
		return nil, wrong("--by=%s: mmap and read can be", c.By)
	case c.Order != Sequential && c.Order != Random:
		return nil, wrong("--order=%s: sequential and random can be", c.Order)
	}
	file, size, err := open(c.File)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	source, sourceSize, err := open(c.Against)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	if sourceSize != size {
		return nil, wrong("%s has %d bytes, %s has %d", c.Against, sourceSize, c.File, size)
	}
	read := func(off int64, buf []byte) error { return pread(file, off, buf) }
	if c.By == Mmap {
		m, err := newMapping(file, size, c.Order)
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", c.File, err)
		}
		defer m.close()
		read = m.read
	}
	start, r := time.Now(), &Result{}
	err = c.compare(ctx, r, read, source, size)
	r.Elapsed = time.Since(start)
	return r, err
}

// wrong is the error for a Config that makes no sense.
func wrong(format string, args ...any) error { return exitcode.Errorf(exitcode.Usage, format, args...) }

// open opens a file and says how large it is.
func open(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = wrong("%s is not a regular file", path)
	case info.Size() == 0:
		err = wrong("%s is empty", path)
	default:
		return f, info.Size(), nil
	}
	f.Close()
	return nil, 0, err
}

// compare reads block after block in the order that was asked for.
func (c Config) compare(ctx context.Context, r *Result, read func(int64, []byte) error,
	source *os.File, size int64) error {
	block := int64(PageSize)
	if c.Order == Sequential {
		block = sequentialBlock
	}
	order := make([]uint32, (size+block-1)/block)
	for i := range order {
		order[i] = uint32(i)
	}
	if c.Order == Random {
		rng := rand.New(rand.NewPCG(c.Seed, 0))
		rng.Shuffle(len(order), func(i, k int) { order[i], order[k] = order[k], order[i] })
	}
	if c.Quiet == nil {
		c.Quiet = func() {}
	}
	quiet := time.AfterFunc(QuietTime, c.Quiet)
	defer quiet.Stop()
	got, want, done := make([]byte, block), make([]byte, block), int64(0)
	for _, i := range order {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		off := int64(i) * block
		n := min(block, size-off)
		if err := read(off, got[:n]); err != nil {
			return err
		}
		quiet.Reset(QuietTime)
		if err := readFull(source, off, want[:n]); err != nil {
			return fmt.Errorf("read %s at %d: %w", c.Against, off, errno(err))
		}
		r.count(off, got[:n], want[:n])
		if done += n; c.Progress != nil {
			c.Progress(done, size)
		}
	}
	return nil
}

// count compares the pages of a block.
func (r *Result) count(off int64, got, want []byte) {
	for at := 0; at < len(got); at += PageSize {
		end := min(at+PageSize, len(got))
		r.Pages++
		if bytes.Equal(got[at:end], want[at:end]) {
			continue
		}
		if r.Differ++; len(r.At) < maxNamed {
			first := at
			for got[first] == want[first] {
				first++
			}
			r.At = append(r.At, off+int64(first))
		}
	}
}
