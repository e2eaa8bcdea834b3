package index

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWritersExcludeOneAnother(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir() + "/store"
	s := openTest(t, dir, nil)
	_, err := Open(ctx, dir, OpenOptions{Wait: 3 * lockPoll})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "pid ") {
		t.Errorf("a second writer: %v", err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Open(canceled, dir, OpenOptions{Wait: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Errorf("a second writer that is cancelled: %v", err)
	}
	// One that waits gets the store when the first one is done.
	got := make(chan error, 1)
	go func() {
		s, err := Open(ctx, dir, OpenOptions{Wait: time.Hour})
		if err == nil {
			err = s.Close()
		}
		got <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestServerLock(t *testing.T) {
	dir := t.TempDir()
	if _, served, err := ServerOf(dir); served || err != nil {
		t.Fatalf("without a lock file: %v, %v", served, err)
	}
	l, err := LockServer(dir, "/mnt/a b")
	if err != nil {
		t.Fatal(err)
	}
	s, served, err := ServerOf(dir)
	want := Server{PID: os.Getpid(), Name: filepath.Base(os.Args[0]), Mount: "/mnt/a b"}
	if !served || err != nil || s != want {
		t.Errorf("%+v, %v, %v", s, served, err)
	}
	if _, err := LockServer(dir, "/other"); !errors.Is(err, ErrLocked) {
		t.Errorf("a second server: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, served, err := ServerOf(dir); served || err != nil {
		t.Errorf("after the server: %v, %v", served, err)
	}
}

// Who waits to write when the store is closed is told so.
func TestWriterWaitsAtClose(t *testing.T) {
	s := openTest(t, t.TempDir()+"/store", nil)
	done, err := s.write(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	waits, closed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := s.GC(context.Background(), GCOptions{})
		waits <- err
	}()
	go func() { closed <- s.Close() }()
	if err := <-waits; !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	done()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// Who yields is told that another process waits to write for which it makes room, and that one waits for it
// although it had no time to wait.
func TestYield(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir() + "/store"
	if err := openTest(t, dir, nil).Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ has, wants Yield }{
		{YieldAll, YieldNone}, {YieldAll, YieldWriters}, {YieldWriters, YieldNone},
	} {
		s, err := Open(ctx, dir, OpenOptions{Yield: c.has})
		if err != nil {
			t.Fatal(err)
		}
		if WriterWaits(dir, c.has) {
			t.Fatalf("%+v: nobody wants to write", c)
		}
		if _, err := Open(ctx, dir, OpenOptions{Yield: YieldAll}); !errors.Is(err, ErrLocked) {
			t.Errorf("%+v: another one that yields to all: %v", c, err)
		}
		got := make(chan error, 1)
		go func() {
			s, err := Open(ctx, dir, OpenOptions{Yield: c.wants})
			if err == nil {
				if WriterWaits(dir, c.has) {
					err = errors.New("it is still wanted by the one who has it")
				}
				err = errors.Join(err, s.Close())
			}
			got <- err
		}()
		for !WriterWaits(dir, c.has) {
			select {
			case err := <-got:
				t.Fatalf("%+v: it did not wait: %v", c, err)
			default:
			}
		}
		if c.wants == YieldWriters && WriterWaits(dir, YieldWriters) {
			t.Errorf("%+v: two that yield alike make room for one another", c)
		}
		if WriterWaits(dir, YieldNone) {
			t.Errorf("%+v: one that yields to nobody makes room", c)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	// Nobody waits for one that yields to nobody, for longer than it says.
	openTest(t, dir, nil)
	if _, err := Open(ctx, dir, OpenOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second writer: %v", err)
	}
}
