package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/pack"
)

// keeperTimeout is how long the keeper may take for one answer. Badger takes milliseconds, and some
// seconds where the disk is busy.
const keeperTimeout = time.Minute

// keptKeys is an index in a keeper, which may die.
type keptKeys struct {
	timeout time.Duration
	proc    *exec.Cmd
	in      io.WriteCloser // questions
	out     boundedAnswers
	wire    *caller // over both
	stderr  stderrHead
	ended   chan struct{}
	end     error // how the process ended; valid once ended is closed

	mu   sync.Mutex // held for a question and its answer
	dead error      // why no more questions are asked; guarded by mu
}

// startKeeper runs cmd, which must do nothing but call KeeperMain, and has it open the index at a place.
// The process inherits lock: nobody else writes to the store while it lives. errNoKeeper if it cannot
// be started.
func startKeeper(ctx context.Context, cmd *exec.Cmd, lock *os.File, at indexPlace,
	timeout time.Duration) (_ keyStore, err error) {
	if err := os.MkdirAll(at.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	if at.Dir, err = filepath.Abs(at.Dir); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	k := &keptKeys{timeout: timeout, proc: cmd, ended: make(chan struct{})}
	if err := k.start(lock); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoKeeper, err)
	}
	version := ""
	if err = k.ask(ctx, "Version", 0, &version); err == nil && version != keeperVersion {
		err = fmt.Errorf("it says that it is %.40q", version)
	}
	if err != nil {
		k.kill()
		return nil, fmt.Errorf("%w: %w", errNoKeeper, err)
	}
	if err := k.ask(ctx, "Open", at, new(int)); err != nil {
		k.kill()
		return nil, err
	}
	return k, nil
}

// start runs the process. It dies with the thread that began it, which therefore waits for it.
func (k *keptKeys) start(lock *os.File) (err error) {
	if k.in, err = k.proc.StdinPipe(); err != nil {
		return err
	}
	if k.out.ReadCloser, err = k.proc.StdoutPipe(); err != nil {
		return errors.Join(err, k.in.Close())
	}
	k.proc.Stderr = &k.stderr
	k.proc.ExtraFiles = append(k.proc.ExtraFiles, lock)
	if k.proc.SysProcAttr == nil {
		k.proc.SysProcAttr = &unix.SysProcAttr{}
	}
	k.proc.SysProcAttr.Pdeathsig = unix.SIGKILL
	started := make(chan error, 1)
	go func() {
		defer close(k.ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := k.proc.Start()
		started <- err
		if err == nil {
			k.end = k.proc.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	k.wire = newCaller(&k.out, k.in)
	return nil
}

// maxAnswer bounds an answer in bytes. Rows and refs of maxRows have some hundred thousand.
const maxAnswer = 4 << 20

// boundedAnswers is what a keeper writes. One that does not stop is an error before it fills the memory:
// package rpc itself takes answers of several GiB.
type boundedAnswers struct {
	io.ReadCloser
	left atomic.Int64 // bytes of the present answer
}

func (a *boundedAnswers) Read(b []byte) (int, error) {
	n, err := a.ReadCloser.Read(b)
	if a.left.Add(-int64(n)) < 0 {
		return 0, fmt.Errorf("%w: it has more than %d bytes", errAnswer, maxAnswer)
	}
	return n, err
}

// ask calls a method of the keeper. After any error but one that the keeper answers, no more questions
// are asked.
func (k *keptKeys) ask(ctx context.Context, method string, question, answer any) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead != nil {
		return k.dead
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// A keeper that hangs may not even read. Only its end brings the call back.
	limited, cancel := context.WithTimeoutCause(ctx, k.timeout, fmt.Errorf("no answer in %v", k.timeout))
	defer cancel()
	stop := context.AfterFunc(limited, k.kill)
	k.out.left.Store(maxAnswer)
	err := k.wire.call(method, question, answer)
	if !stop() {
		err = context.Cause(limited)
	}
	var answered answeredError
	if err != nil && !errors.As(err, &answered) {
		k.dead = fmt.Errorf("the keeper of the index: %w", k.failure(err))
		return k.dead
	}
	return err
}

// failure ends the process after an error, and adds to the error how it ended and what it printed.
func (k *keptKeys) failure(err error) error {
	k.kill()
	select {
	case <-k.ended:
	default:
		return err
	}
	if k.end != nil {
		err = fmt.Errorf("%w (%w)", err, k.end)
	}
	switch line := k.stderr.why(); {
	case strings.HasPrefix(line, faultLine):
		err = fmt.Errorf("%w: a file of it cannot be written, as where the disk or a quota is full", err)
	case line != "":
		err = fmt.Errorf("%w: %s", err, line)
	}
	return err
}

// faultLine begins what a process prints that has died of a SIGBUS: Badger writes through shared mappings.
const faultLine = "unexpected fault "

func (k *keptKeys) pages(ctx context.Context, hashes []pack.Hash, refs []uint64) error {
	keys := make([]byte, 0, len(hashes)*pageKeySize)
	for _, h := range hashes {
		keys = append(keys, h[:pageKeySize]...)
	}
	var found []byte
	if err := k.ask(ctx, "Pages", keys, &found); err != nil {
		return err
	}
	if len(found) != 8*len(refs) {
		return fmt.Errorf("%w: %d bytes for %d refs", errAnswer, len(found), len(refs))
	}
	for i := range refs {
		refs[i] = binary.LittleEndian.Uint64(found[8*i:])
	}
	return nil
}

func (k *keptKeys) get(ctx context.Context, key []byte) (value []byte, err error) {
	err = k.ask(ctx, "Get", key, &value)
	return value, err
}

func (k *keptKeys) update(ctx context.Context, rows []row) error {
	return k.ask(ctx, "Update", stringsOf(rows), new(int))
}

func (k *keptKeys) scan(ctx context.Context, kind byte, after []byte) ([]row, error) {
	var found []string
	if err := k.ask(ctx, "Scan", append([]byte{kind}, after...), &found); err != nil {
		return nil, err
	}
	rows, last := rowsOf(found), after
	for _, r := range rows {
		// Otherwise a scan might never end.
		if len(r.key) == 0 || r.key[0] != kind || bytes.Compare(r.key, last) <= 0 {
			return nil, fmt.Errorf("%w: rows that were not asked for", errAnswer)
		}
		last = r.key
	}
	return rows, nil
}

// errAnswer marks an answer that a keeper does not give.
var errAnswer = errors.New("the keeper of the index gave a wrong answer")

// close makes the keeper close the index, and waits until it has ended.
func (k *keptKeys) close() error {
	if err := k.ask(context.Background(), "Close", 0, new(int)); err != nil {
		return err
	}
	k.disconnect()
	select {
	case <-k.ended:
	case <-time.After(k.timeout):
		return errors.New("the keeper of the index does not end")
	}
	return k.end
}

// kill ends the process. It does not wait for one that the kernel cannot end now because it waits for
// a disk.
func (k *keptKeys) kill() {
	_ = k.proc.Process.Kill() // it fails only if the process has ended
	k.disconnect()
	select {
	case <-k.ended:
	case <-time.After(keeperGrace):
	}
}

// disconnect closes the pipes.
func (k *keptKeys) disconnect() {
	_ = k.in.Close()
	_ = k.out.Close()
}

// stderrHead keeps the beginning of what a process prints when it dies: that part says why.
type stderrHead struct {
	mu sync.Mutex
	b  []byte // guarded by mu
}

const maxStderrHead = 4 << 10

func (w *stderrHead) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, b[:min(len(b), maxStderrHead-len(w.b))]...)
	return len(b), nil
}

// why returns the line that explains most.
func (w *stderrHead) why() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := ""
	for line := range strings.Lines(string(w.b)) {
		line = strings.TrimSpace(line)
		for _, start := range []string{"panic: ", "fatal error: ", faultLine} {
			if strings.HasPrefix(line, start) {
				return line
			}
		}
		if first == "" {
			first = line
		}
	}
	return first
}
