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
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Ways to read, the values of Config.By.
const (
	Mmap = "mmap"
	Read = "read"
)

// Config says what to read and how.
type Config struct {
	File    string
	Against string // the file that File is compared with
	By      string // Mmap or Read
	Order   string // Sequential or Random
	Seed    uint64 // of the random order

	// Progress, if not nil, is called now and then with the bytes read so far and those to read;
	// quiet is how long no read has ended.
	Progress func(done, total int64, quiet time.Duration)
}

// PageSize is the unit in which differences are counted, and that of a random order.
const PageSize = 4096

// sequentialBlock is how much is read at once in sequential order: more than a READ can be.
const sequentialBlock = 1 << 20

// maxNamed is the number of differences that a result names.
const maxNamed = 10

// Result is the result of a run.
type Result struct {
	Elapsed time.Duration
	Pages   int64   // compared
	Differ  int64   // of these
	At      []int64 // offsets of the first bytes that differ, of a few pages
}

// ConfigError says what is wrong with a Config.
type ConfigError struct{ What string }

func (e *ConfigError) Error() string { return e.What }

// run is a comparison under way.
type run struct {
	Config
	reader reader
	source *os.File
	size   int64
	result Result

	done atomic.Int64 // bytes compared
	last atomic.Int64 // when a read ended, in Unix nanoseconds
}

// Run compares all of the file. It ends when everything is read, at the first error, or with ctx;
// a read that the kernel has begun is waited for. The result is nil if the run could not begin.
func Run(ctx context.Context, c Config) (*Result, error) {
	switch {
	case c.Against == "":
		return nil, &ConfigError{"say with --against which file it is compared with"}
	case c.By != Mmap && c.By != Read:
		return nil, &ConfigError{fmt.Sprintf("--by=%s: mmap and read can be", c.By)}
	case c.Order != Sequential && c.Order != Random:
		return nil, &ConfigError{fmt.Sprintf("--order=%s: sequential and random can be", c.Order)}
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
		return nil, &ConfigError{fmt.Sprintf("%s has %d bytes, %s has %d", c.Against, sourceSize,
			c.File, size)}
	}
	r := &run{Config: c, reader: pread{file}, source: source, size: size}
	if c.By == Mmap {
		m, err := newMapping(file, size, c.Order)
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", c.File, err)
		}
		defer m.close()
		r.reader = m
	}
	start := time.Now()
	r.last.Store(start.UnixNano())
	err = r.watched(ctx)
	r.result.Elapsed = time.Since(start)
	return &r.result, err
}

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
		err = &ConfigError{fmt.Sprintf("%s is not a regular file", path)}
	case info.Size() == 0:
		err = &ConfigError{fmt.Sprintf("%s is empty", path)}
	default:
		return f, info.Size(), nil
	}
	f.Close()
	return nil, 0, err
}

// watched compares, and reports the progress meanwhile.
func (r *run) watched(ctx context.Context) error {
	if r.Progress == nil {
		return r.compare(ctx)
	}
	var watch sync.WaitGroup
	over := make(chan struct{})
	watch.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case now := <-tick.C:
				r.Progress(r.done.Load(), r.size, now.Sub(time.Unix(0, r.last.Load())))
			}
		}
	})
	defer watch.Wait()
	defer close(over)
	return r.compare(ctx)
}

// compare reads block after block in the order that was asked for.
func (r *run) compare(ctx context.Context) error {
	block := int64(PageSize)
	if r.Order == Sequential {
		block = sequentialBlock
	}
	blocks := uint64((r.size + block - 1) / block)
	at := func(i uint64) uint64 { return i }
	if r.Order == Random {
		at = newPermutation(r.Seed, blocks).at
	}
	got, want := make([]byte, block), make([]byte, block)
	for i := range blocks {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		off := int64(at(i)) * block
		n := min(block, r.size-off)
		err := r.reader.read(off, got[:n])
		r.last.Store(time.Now().UnixNano())
		if err != nil {
			return err
		}
		if err := readFull(r.source, off, want[:n]); err != nil {
			return fmt.Errorf("read %s at %d: %w", r.Against, off, errno(err))
		}
		r.count(off, got[:n], want[:n])
		r.done.Add(n)
	}
	return nil
}

// count compares the pages of a block.
func (r *run) count(off int64, got, want []byte) {
	for len(got) > 0 {
		n := min(PageSize, len(got))
		r.result.Pages++
		if !bytes.Equal(got[:n], want[:n]) {
			r.result.Differ++
			if len(r.result.At) < maxNamed {
				r.result.At = append(r.result.At, off+firstDifference(got[:n], want[:n]))
			}
		}
		off, got, want = off+int64(n), got[n:], want[n:]
	}
}

func firstDifference(a, b []byte) int64 {
	for i := range a {
		if a[i] != b[i] {
			return int64(i)
		}
	}
	return int64(len(a))
}
