package torture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/tests/internal/proc"
)

// A mount is read by processes of their own, never by the one that serves or judges it: the test
// binary once more, told by its environment what to read and in which ways, all of them at once.

const readerEnv = "THAW_TEST_TORTURE_READER"

// readRequest is what a reader is told.
type readRequest struct {
	Path string // on the mount
	Want string // a file with the bytes that must come
	Ways []string
	Seed uint64
	Copy string // a directory for what the way "copy" makes
}

// readAnswer is what it found: pages that were wrong, and what failed, by way.
type readAnswer struct {
	Wrong  map[string][]int
	Failed map[string]string
	Lost   map[string]int // pages that could not be read
}

// ways of reading a file.
var ways = map[string]func(*reader) error{
	"mmap":     (*reader).mmap,
	"read":     (*reader).read,
	"direct":   (*reader).direct,
	"sendfile": (*reader).sendfile,
	"copy":     (*reader).copy,
}

// readerMainIfChild must be called first by TestMain: in a reader it does not return.
func readerMainIfChild() {
	told := os.Getenv(readerEnv)
	if told == "" {
		return
	}
	var q readRequest
	if err := json.Unmarshal([]byte(told), &q); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	want, err := os.ReadFile(q.Want)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	a := readAll(q, want)
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		os.Exit(3)
	}
	os.Exit(0)
}

// readAll reads in all ways at once.
func readAll(q readRequest, want []byte) readAnswer {
	a := readAnswer{Wrong: map[string][]int{}, Failed: map[string]string{}, Lost: map[string]int{}}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i, way := range q.Ways {
		wg.Go(func() {
			r := &reader{
				q: q, want: want, rnd: rand.New(rand.NewPCG(q.Seed, uint64(i))), bad: map[int]bool{},
			}
			err := ways[way](r)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				a.Failed[way] = err.Error()
			}
			for gfn := range r.bad {
				a.Wrong[way] = append(a.Wrong[way], gfn)
			}
			if r.lost > 0 {
				a.Lost[way] = r.lost
			}
		})
	}
	wg.Wait()
	return a
}

// reader reads in one way.
type reader struct {
	q    readRequest
	want []byte
	rnd  *rand.Rand
	bad  map[int]bool
	lost int
}

// saw compares bytes that came from an offset with what they must be.
func (r *reader) saw(off int, got []byte) {
	for len(got) > 0 {
		n := min(len(got), pageSize-off%pageSize)
		if off+n > len(r.want) || !bytes.Equal(got[:n], r.want[off:off+n]) {
			r.bad[off/pageSize] = true
		}
		off, got = off+n, got[n:]
	}
}

func (r *reader) open(flags int) (*os.File, error) {
	fd, err := unix.Open(r.q.Path, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	f := os.NewFile(uintptr(fd), r.q.Path)
	st, err := f.Stat()
	if err == nil && st.Size() != int64(len(r.want)) {
		err = fmt.Errorf("%d bytes, want %d", st.Size(), len(r.want))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// mmap touches all pages in no order.
func (r *reader) mmap() error {
	f, err := r.open(0)
	if err != nil {
		return err
	}
	defer f.Close()
	how := unix.MAP_SHARED
	if r.rnd.IntN(2) == 0 {
		how = unix.MAP_PRIVATE
	}
	b, err := unix.Mmap(int(f.Fd()), 0, len(r.want), unix.PROT_READ, how)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	defer func() { _ = unix.Munmap(b) }()
	if r.rnd.IntN(2) == 0 {
		if err := unix.Madvise(b, unix.MADV_RANDOM); err != nil {
			return fmt.Errorf("madvise: %w", err)
		}
	}
	debug.SetPanicOnFault(true)
	for _, gfn := range r.rnd.Perm(len(b) / pageSize) {
		if !r.touch(gfn, b[gfn*pageSize:][:pageSize]) {
			r.lost++
		}
	}
	return nil
}

// touch looks at a page; a SIGBUS is a panic, and false.
func (r *reader) touch(gfn int, page []byte) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	r.saw(gfn*pageSize, page)
	return true
}

// read reads with pread(2), lengths and places as they come, and then all from the beginning.
func (r *reader) read() error {
	f, err := r.open(0)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 60 {
		off := r.rnd.IntN(len(r.want))
		r.pread(f, off, make([]byte, 1+r.rnd.IntN(min(len(r.want)-off, 300_000))))
	}
	buf := make([]byte, [...]int{4096, 10_000, 1 << 20}[r.rnd.IntN(3)])
	for off := 0; off < len(r.want); off += len(buf) {
		r.pread(f, off, buf[:min(len(buf), len(r.want)-off)])
	}
	return nil
}

// pread reads as much of a range as it gets.
func (r *reader) pread(f *os.File, off int, buf []byte) {
	for len(buf) > 0 {
		n, err := unix.Pread(int(f.Fd()), buf, int64(off))
		if err != nil || n <= 0 {
			r.lost++
			return
		}
		r.saw(off, buf[:n])
		off, buf = off+n, buf[n:]
	}
}

// direct reads past the page cache, into memory that is aligned.
func (r *reader) direct() error {
	f, err := r.open(unix.O_DIRECT)
	if err != nil {
		return err
	}
	defer f.Close()
	buf, err := unix.Mmap(-1, 0, 256*pageSize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(buf) }()
	n := len(r.want) / pageSize
	for range 60 {
		gfn := r.rnd.IntN(n)
		count := 1 + r.rnd.IntN(min(n-gfn, 256))
		r.pread(f, gfn*pageSize, buf[:count*pageSize])
	}
	return nil
}

// sendfile sends the file through a pipe: no copy is made on the way.
func (r *reader) sendfile() error {
	f, err := r.open(0)
	if err != nil {
		return err
	}
	defer f.Close()
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	sent := make(chan error, 1)
	go func() {
		defer in.Close()
		for off := int64(0); off < int64(len(r.want)); {
			n, err := unix.Sendfile(int(in.Fd()), int(f.Fd()), &off, 1+int(r.q.Seed%500_000))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err == nil && n == 0 {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				sent <- fmt.Errorf("sendfile at %d: %w", off, err)
				return
			}
		}
		sent <- nil
	}()
	r.stream(out)
	return <-sent
}

// stream looks at what comes from the beginning on.
func (r *reader) stream(in io.Reader) {
	buf := make([]byte, 64<<10)
	for off := 0; ; {
		n, err := in.Read(buf)
		r.saw(off, buf[:n])
		off += n
		if err != nil {
			return
		}
	}
}

// copy copies the file as cp does (copy_file_range or what the kernel has instead).
func (r *reader) copy() error {
	f, err := r.open(0)
	if err != nil {
		return err
	}
	defer f.Close()
	to := filepath.Join(r.q.Copy, fmt.Sprint("copy-", os.Getpid()))
	out, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(to)
	defer out.Close()
	_, err = io.Copy(out, f)
	if _, serr := out.Seek(0, io.SeekStart); serr != nil {
		return errors.Join(err, serr)
	}
	r.stream(out)
	return err
}

// readerLimit is how long a reader may take. One that takes longer hangs.
const readerLimit = 60 * time.Second

// startReader starts a reader; its answer comes with wait.
func startReader(q readRequest) (*readerProcess, error) {
	told, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	p := &readerProcess{q: q}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), readerEnv+"="+string(told))
	cmd.Stdout, cmd.Stderr = &p.out, &p.diag
	p.proc, err = proc.Start(cmd)
	return p, err
}

type readerProcess struct {
	q         readRequest
	name      string // of the checkpoint
	proc      *proc.Process
	out, diag bytes.Buffer
}

// wait returns the answer. unhang frees a reader that hangs.
func (p *readerProcess) wait(unhang func()) (a readAnswer, err error) {
	err = p.proc.Wait(readerLimit)
	var hang *proc.HangError
	if errors.As(err, &hang) {
		_ = p.proc.Kill(5 * time.Second)
		unhang()
		_ = p.proc.Kill(5 * time.Second)
		return a, fmt.Errorf("reader of %s by %s: %w", p.q.Path, strings.Join(p.q.Ways, ", "), err)
	}
	if err != nil {
		return a, fmt.Errorf("reader of %s: %w\n%s", p.q.Path, err, p.diag.String())
	}
	return a, json.Unmarshal(p.out.Bytes(), &a)
}
