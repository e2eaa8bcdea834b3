package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ErrStop says that the threads of a process could not be stopped.
var ErrStop = errors.New("the threads of the machine cannot be stopped")

// stopTime is how long a thread may take to stop. It takes some microseconds, except while it waits in
// the kernel for a disk, or for a page of its memory.
const stopTime = 10 * time.Second

// threads stops the threads of a process, as a debugger does. They are attached only while they are
// stopped. All calls of ptrace are made by one thread of this process, since the kernel knows no other
// as the tracer; if it ends, so do the stops.
type threads struct {
	p    *proc
	work chan func()
	done chan struct{}
	// held are threads that are attached: whether they have stopped, and the signal that was on its way to
	// them. Used by the tracer only.
	held map[int]*held
}

type held struct {
	stopped bool
	signal  unix.Signal
}

func newThreads(p *proc) *threads {
	t := &threads{p: p, work: make(chan func()), done: make(chan struct{}), held: map[int]*held{}}
	go t.trace()
	return t
}

// trace is the tracer. It must not run on the main thread, which does not end with its goroutine.
func (t *threads) trace() {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		go t.trace()
		<-t.done
		runtime.UnlockOSThread()
		return
	}
	defer close(t.done) // and the thread ends
	for f := range t.work {
		f()
	}
}

// do calls f on the tracer's thread.
func (t *threads) do(f func() error) error {
	var err error
	done := make(chan struct{})
	t.work <- func() { defer close(done); err = f() }
	<-done
	return err
}

// stop stops all threads. When it fails none is stopped.
func (t *threads) stop(ctx context.Context) error {
	return t.do(func() error {
		err := t.stopAll(ctx)
		if err != nil {
			err = errors.Join(err, t.releaseAll())
		}
		return err
	})
}

// resume lets all threads go on. One that was stopped before, by a signal, stays so.
func (t *threads) resume() error { return t.do(t.releaseAll) }

// close ends the tracer.
func (t *threads) close() {
	close(t.work)
	<-t.done
}

// stopAll attaches threads until there are no new ones: one that is not stopped yet may start others.
func (t *threads) stopAll(ctx context.Context) error {
	for {
		news, err := t.attach()
		if err != nil {
			return err
		}
		if news == 0 {
			break
		}
		if err := t.await(ctx); err != nil {
			return err
		}
	}
	if len(t.held) == 0 {
		return fmt.Errorf("process %d has ended: %w", t.p.pid, os.ErrNotExist)
	}
	return nil
}

// attach attaches the threads that are not attached.
func (t *threads) attach() (news int, err error) {
	list, err := os.ReadDir(t.p.path("task"))
	if err != nil {
		return 0, fmt.Errorf("threads of process %d: %w", t.p.pid, err)
	}
	for _, e := range list {
		tid, err := strconv.Atoi(e.Name())
		if err != nil || t.held[tid] != nil {
			continue
		}
		err = unix.PtraceSeize(tid)
		if errors.Is(err, unix.ESRCH) || err == nil && errors.Is(unix.PtraceInterrupt(tid), unix.ESRCH) {
			continue // it has ended
		}
		if errors.Is(err, unix.EPERM) && t.ended(tid) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("%w: thread %d of process %d: %w", ErrStop, tid, t.p.pid, err)
		}
		t.held[tid] = &held{}
		news++
	}
	return news, nil
}

// ended says that a thread has ended, and is only still listed.
func (t *threads) ended(tid int) bool {
	text, err := os.ReadFile(t.p.path("task", strconv.Itoa(tid), "stat"))
	if err != nil {
		return true
	}
	for i := len(text) - 1; i >= 0; i-- { // the name, which is in brackets, may have brackets itself
		if text[i] == ')' {
			return i+2 < len(text) && (text[i+2] == 'Z' || text[i+2] == 'X')
		}
	}
	return false
}

// await waits until all that are attached have stopped.
func (t *threads) await(ctx context.Context) error {
	begin, wait := time.Now(), 20*time.Microsecond
	for {
		running := 0
		for tid, h := range t.held {
			if h.stopped {
				continue
			}
			var ws unix.WaitStatus
			got, err := unix.Wait4(tid, &ws, unix.WNOHANG|unix.WALL, nil)
			switch {
			case errors.Is(err, unix.EINTR), err == nil && got == 0:
				running++
			case err != nil, ws.Exited(), ws.Signaled():
				delete(t.held, tid) // it has ended
			case ws.Stopped():
				h.stopped = true
				if ws>>16 == 0 { // not for us, but for a signal that it gets when it goes on
					h.signal = ws.StopSignal()
				}
			default:
				running++
			}
		}
		if running == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Since(begin) > stopTime {
			return fmt.Errorf("%w: %d threads of process %d have not stopped for %v", ErrStop, running,
				t.p.pid, stopTime)
		}
		time.Sleep(wait)
		wait = min(2*wait, time.Millisecond)
	}
}

// releaseAll detaches all threads. One that has not stopped yet is waited for: only then it can be
// detached.
func (t *threads) releaseAll() error {
	err := t.await(context.Background())
	for tid, h := range t.held {
		_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(tid), 0,
			uintptr(h.signal), 0, 0)
		if errno != 0 && errno != unix.ESRCH {
			err = errors.Join(err, fmt.Errorf("let thread %d of process %d go on: %w", tid, t.p.pid, errno))
		}
		delete(t.held, tid)
	}
	return err
}
