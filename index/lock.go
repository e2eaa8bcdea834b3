package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
)

// A store has two locks, files that a process holds by flock for as long as it needs. The kernel
// releases them when the process dies, so they are never stale. The first line of the file names the
// holder, for the messages of other processes.
//
//	write.lock   the process that writes to the store; the second line is "gives way" if it does
//	lock         the process that serves it; the second line is the mount point
//
// They do not exclude one another: what a server has open is never changed. A third file, wanted.lock,
// excludes no process: each one that waits for write.lock has a shared lock on a byte of it (see want).
const (
	writeLockName  = "write.lock"
	serverLockName = "lock"
	wantLockName   = "wanted.lock"
)

// givesWay is what the holder of write.lock writes into it if it makes room for others, and giveWayWait is
// how long that one waits for it at least.
const (
	givesWay    = "gives way\n"
	giveWayWait = 30 * time.Second
)

// lockPoll is how often a lock that another process has is tried again.
const lockPoll = 20 * time.Millisecond

// Yield says for whom a process that writes to a store makes room.
type Yield uint8

const (
	// YieldNone: for no other. It has the store until it closes it.
	YieldNone Yield = iota
	// YieldWriters: for processes with YieldNone.
	YieldWriters
	// YieldAll: for all others but those with YieldAll. It does not ask others to make room for it.
	YieldAll
)

// lockWriter takes write.lock. It waits no longer than wait for a process that has it, or longer if that
// process gives way.
func lockWriter(ctx context.Context, dir string, wait time.Duration, y Yield) (*os.File, error) {
	more := ""
	if y != YieldNone {
		more = givesWay
	}
	if y == YieldAll {
		f, err := takeLock(ctx, dir, writeLockName, wait, more)
		return f, lockError(dir, err)
	}
	f, err := takeLock(ctx, dir, writeLockName, 0, more)
	if errors.Is(err, ErrLocked) {
		f, err = lockWanted(ctx, dir, wait, y, more)
	}
	return f, lockError(dir, err)
}

func lockError(dir string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write to store %s: %w", dir, err)
}

// lockWanted is lockWriter where another process has the lock, which is told that somebody waits.
func lockWanted(ctx context.Context, dir string, wait time.Duration, y Yield, more string) (*os.File, error) {
	defer want(dir, y)()
	// A holder says whether it gives way just after it has got the lock.
	f, err := takeLock(ctx, dir, writeLockName, min(max(wait, 2*lockPoll), 10*lockPoll), more)
	if !errors.Is(err, ErrLocked) {
		return f, err
	}
	if b, _ := os.ReadFile(filepath.Join(dir, writeLockName)); strings.HasSuffix(string(b), "\n"+givesWay) {
		wait = max(wait, giveWayWait)
	}
	if wait <= 10*lockPoll {
		return nil, err
	}
	return takeLock(ctx, dir, writeLockName, wait, more)
}

// want tells the process that writes to the store that another one waits to do so, until done is called.
// It cannot be told everywhere; then the wait is for nothing but the lock. It is a lock of another kind
// than flock, because with that of a process which gives way it is asked for and never taken.
func want(dir string, y Yield) (done func()) {
	f, err := openLock(dir, wantLockName)
	if err != nil {
		return func() {}
	}
	_ = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{
		Type: unix.F_RDLCK, Start: int64(y), Len: 1,
	})
	return func() { f.Close() }
}

// WriterWaits says whether another process waits to write to the store in dir for which one that yields so
// makes room, as far as it can tell.
func WriterWaits(dir string, y Yield) bool {
	if y == YieldNone {
		return false
	}
	f, err := os.OpenFile(filepath.Join(dir, wantLockName), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	other := unix.Flock_t{Type: unix.F_WRLCK, Len: int64(y)} // of the processes that yield less
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &other)
	return err == nil && other.Type != unix.F_UNLCK
}

// WriterOf returns the process that writes to the store in dir, or did so last; 0 if that is not known.
func WriterOf(dir string) (pid int) {
	b, _ := os.ReadFile(filepath.Join(dir, writeLockName)) // what is not there is not known
	_, _ = fmt.Sscanf(string(b), "pid %d ", &pid)
	return pid
}

// openLock opens the file of a lock, and makes it if there is none.
func openLock(dir, name string) (*os.File, error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	if err != nil {
		return nil, err
	}
	if err := blob.GiveTo(dir, path); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// takeLock takes a lock within wait, and writes more than the holder into its file. ErrLocked if another
// process keeps it; ErrReadOnly if there can be no such file here.
func takeLock(ctx context.Context, dir, name string, wait time.Duration, more string) (*os.File, error) {
	f, err := openLock(dir, name)
	if err == nil {
		err = flock(ctx, f, wait)
	}
	if errors.Is(err, ErrLocked) {
		err = fmt.Errorf("%w by %s", ErrLocked, holderOf(dir, name))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	note(f, more)
	return f, nil
}

func flock(ctx context.Context, f *os.File, wait time.Duration) error {
	end := time.NewTimer(wait)
	defer end.Stop()
	again := time.NewTicker(lockPoll)
	defer again.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return os.NewSyscallError("flock", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return ErrLocked
		case <-again.C:
		}
	}
}

// note writes the holder into a lock file. Errors are ignored: the lock must work on a full disk, too.
func note(f *os.File, more string) {
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "pid %d (%s)\n%s", os.Getpid(), filepath.Base(os.Args[0]), more), 0)
	}
}

// holderOf says who holds a lock, if its file names the holder.
func holderOf(dir, name string) string {
	b, _ := os.ReadFile(filepath.Join(dir, name)) // it is only for a message
	who, _, _ := strings.Cut(string(b), "\n")
	if who = strings.TrimSpace(who); who == "" {
		return "another process"
	}
	return who
}

// ServerLock is the lock that a server holds on the store it serves.
type ServerLock struct{ f *os.File }

// serverWait bridges the instant for which ServerOf takes the lock to see whether it is free.
const serverWait = 250 * time.Millisecond

// LockServer takes the lock of the process that serves the store in dir at mnt: ErrLocked if another
// one does, ErrReadOnly where the store cannot be written to. The latter may be served without the lock.
func LockServer(dir, mnt string) (*ServerLock, error) {
	f, err := takeLock(context.Background(), dir, serverLockName, serverWait, mnt+"\n")
	if err != nil {
		return nil, fmt.Errorf("serve store %s: %w", dir, err)
	}
	return &ServerLock{f}, nil
}

// AdoptServerLock goes on with the lock that another process has taken for a server of dir at mnt: f is a
// descriptor of the same open file. It is released when all of them are closed.
func AdoptServerLock(f *os.File, mnt string) *ServerLock {
	note(f, mnt+"\n")
	return &ServerLock{f}
}

// File is the file that holds the lock.
func (l *ServerLock) File() *os.File { return l.f }

// Close releases the lock.
func (l *ServerLock) Close() error { return l.f.Close() }

// Server is a process that serves a store.
type Server struct {
	PID   int
	Name  string // of its program
	Mount string // empty if not known
}

// ServerOf says who serves the store in dir; false if nobody does.
func ServerOf(dir string) (Server, bool, error) {
	s, serves, err := serverOf(filepath.Join(dir, serverLockName))
	if err != nil {
		return Server{}, false, fmt.Errorf("find the server of store %s: %w", dir, err)
	}
	return s, serves, nil
}

func serverOf(path string) (s Server, serves bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, false, nil
	}
	if err != nil {
		return s, false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) // if it is free, closing f releases it
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return s, false, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return s, false, err
	}
	first, rest, _ := strings.Cut(string(b), "\n")
	// What is not known stays empty.
	_, _ = fmt.Sscanf(first, "pid %d (%s", &s.PID, &s.Name)
	s.Name = strings.TrimSuffix(s.Name, ")")
	s.Mount = strings.TrimSuffix(rest, "\n")
	return s, true, nil
}
