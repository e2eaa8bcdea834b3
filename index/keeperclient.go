package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
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
	in      *os.File  // questions
	out     *os.File  // answers
	said    lastWords // on stderr
	ended   chan struct{}
	end     error // how the process ended; valid once ended is closed

	mu   sync.Mutex // held for a question and its answer
	dead error      // why no more questions are asked; guarded by mu
}

var _ keyStore = (*keptKeys)(nil)

// startKeeper runs cmd, which must do nothing but call KeeperMain, and has it open the index in dir.
// The process inherits lock: nobody else writes to the store while it lives. errNoKeeper if it cannot
// be started.
func startKeeper(ctx context.Context, cmd *exec.Cmd, lock *os.File, dir string,
	timeout time.Duration) (_ *keptKeys, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	k := &keptKeys{timeout: timeout, proc: cmd, ended: make(chan struct{})}
	if err := k.start(lock); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoKeeper, err)
	}
	hello, err := k.receive(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoKeeper, k.mourn(err))
	}
	if string(hello) != keeperHello {
		k.kill()
		return nil, fmt.Errorf("%w: it greets with %.40q", errNoKeeper, hello)
	}
	if _, err := k.ask(ctx, keepOpen, []byte(dir)); err != nil {
		k.kill()
		return nil, err
	}
	return k, nil
}

// start runs the process. It dies with the thread that began it, which therefore waits for it.
func (k *keptKeys) start(lock *os.File) error {
	stdin, in, err := os.Pipe()
	if err != nil {
		return err
	}
	out, stdout, err := os.Pipe()
	if err != nil {
		return errors.Join(err, stdin.Close(), in.Close())
	}
	k.in, k.out = in, out
	k.proc.Stdin, k.proc.Stdout, k.proc.Stderr = stdin, stdout, &k.said
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
		stdin.Close()
		stdout.Close()
		started <- err
		if err == nil {
			k.end = k.proc.Wait()
		}
	}()
	if err := <-started; err != nil {
		return errors.Join(err, in.Close(), out.Close())
	}
	return nil
}

// ask asks one question. After any error but a keeperError no more questions are asked.
func (k *keptKeys) ask(ctx context.Context, kind byte, content []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead != nil {
		return nil, k.dead
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// The limit is for both directions: a keeper that does not read hangs as well.
	err := k.in.SetWriteDeadline(time.Now().Add(k.timeout))
	stop := context.AfterFunc(ctx, func() { _ = k.in.SetWriteDeadline(time.Unix(1, 0)) })
	if err == nil {
		err = writeFrame(k.in, kind, content)
	}
	if !stop() {
		err = errors.Join(err, ctx.Err())
	}
	var answer []byte
	if err == nil {
		answer, err = k.receive(ctx)
	}
	var said *keeperError
	if err != nil && !errors.As(err, &said) {
		k.dead = fmt.Errorf("the keeper of the index: %w", k.mourn(err))
		return nil, k.dead
	}
	return answer, err
}

// keeperError is an answer that is an error: the keeper lives.
type keeperError struct{ text string }

func (e *keeperError) Error() string { return e.text }

// receive waits for an answer.
func (k *keptKeys) receive(ctx context.Context) ([]byte, error) {
	if err := k.out.SetReadDeadline(time.Now().Add(k.timeout)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = k.out.SetReadDeadline(time.Unix(1, 0)) })
	kind, content, err := readFrame(k.out)
	if !stop() {
		return nil, errors.Join(ctx.Err(), err)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("no answer in %v", k.timeout)
	case err != nil:
		return nil, err
	case kind == keepFailed:
		return nil, &keeperError{cut(string(content))}
	case kind != keepDone && kind != keepHello:
		return nil, fmt.Errorf("%w: answer %q", errFrame, kind)
	}
	return content, nil
}

// mourn ends the process after an error, and adds to the error how it ended and what it printed.
func (k *keptKeys) mourn(err error) error {
	k.kill()
	select {
	case <-k.ended:
	default:
		return err
	}
	if k.end != nil {
		err = fmt.Errorf("%w (%w)", err, k.end)
	}
	if line := k.said.why(); line != "" {
		err = fmt.Errorf("%w: %s", err, line)
	}
	return err
}

func (k *keptKeys) pages(ctx context.Context, hashes []pack.Hash, refs []uint64) error {
	b, err := k.ask(ctx, keepPages, appendPageKeys(nil, hashes))
	if err != nil {
		return err
	}
	return parsePageRefs(b, refs)
}

func (k *keptKeys) get(ctx context.Context, key []byte) (value []byte, ok bool, err error) {
	b, err := k.ask(ctx, keepGet, key)
	if err != nil || len(b) == 0 {
		return nil, false, err
	}
	rows, err := parseRows(b)
	if err != nil {
		return nil, false, err
	}
	if len(rows) != 1 || !bytes.Equal(rows[0].key, key) {
		return nil, false, fmt.Errorf("%w: another key's row", errFrame)
	}
	return rows[0].value, true, nil
}

func (k *keptKeys) update(ctx context.Context, rows []row) error {
	b, err := appendRows(nil, rows)
	if err != nil {
		return err
	}
	_, err = k.ask(ctx, keepUpdate, b)
	return err
}

func (k *keptKeys) scan(ctx context.Context, kind byte, after []byte) ([]row, error) {
	b, err := k.ask(ctx, keepScan, append([]byte{kind}, after...))
	if err != nil {
		return nil, err
	}
	rows, err := parseRows(b)
	if err != nil {
		return nil, err
	}
	last := after
	for _, r := range rows {
		// Otherwise a scan might never end.
		if r.key[0] != kind || bytes.Compare(r.key, last) <= 0 {
			return nil, fmt.Errorf("%w: rows that were not asked for", errFrame)
		}
		last = r.key
	}
	return rows, nil
}

// close makes the keeper close the index, and waits until it has ended.
func (k *keptKeys) close() error {
	_, err := k.ask(context.Background(), keepClose, nil)
	if err != nil {
		return err
	}
	k.reap()
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
	k.reap()
	select {
	case <-k.ended:
	case <-time.After(keeperGrace):
	}
}

// reap closes the pipes.
func (k *keptKeys) reap() {
	_ = k.in.Close()
	_ = k.out.Close()
}

// lastWords keeps the beginning of what a process prints when it dies: that part says why.
type lastWords struct {
	mu sync.Mutex
	b  []byte // guarded by mu
}

const maxSaid = 4 << 10

func (w *lastWords) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, b[:min(len(b), maxSaid-len(w.b))]...)
	return len(b), nil
}

// why returns the line that explains most.
func (w *lastWords) why() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := ""
	for line := range strings.Lines(string(w.b)) {
		line = cut(strings.TrimSpace(line))
		for _, start := range []string{"panic: ", "fatal error: ", "unexpected fault "} {
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
