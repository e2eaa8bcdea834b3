// Package errblob injects failures into a blob store. It wraps any blob.Store, numbers its operations,
// and asks a Plan what should happen to each. A test runs its work once to count the operations, and
// then once for each of them with that one failing, so that every possible failure is tested.
package errblob

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
)

var (
	// ErrInjected is the error of FailNth.
	ErrInjected = errors.New("injected failure")
	// ErrCrashed is the error of every operation from the one that Crash chose on.
	ErrCrashed = errors.New("crashed")
)

// Op is a kind of operation.
type Op string

// The operations. Abort and Close are not among them: they cannot fail in a way that matters.
const (
	Create Op = "create"
	Write  Op = "write"
	Commit Op = "commit"
	Open   Op = "open"
	Read   Op = "read"
	List   Op = "list"
	Remove Op = "remove"
)

// Call is one operation about to happen.
type Call struct {
	N     int // 1 for the first operation of the store, counting up
	Op    Op
	Name  string
	Bytes int // of a Write or Read
}

// Fault is what shall happen to an operation.
type Fault struct {
	// Err is the error that the caller gets; nil lets the operation through.
	Err error
	// Short is, for a Write or Read that fails, how many bytes are transferred all the same.
	Short int
	// After makes the operation happen, and the error come all the same: a lost answer.
	After bool
}

// Plan decides. It is called under a lock, for one operation after another.
type Plan func(Call) Fault

// FailNth fails operation n, and no other.
func FailNth(n int, err error) Plan {
	return func(c Call) Fault {
		if c.N != n {
			return Fault{}
		}
		return Fault{Err: fmt.Errorf("%w: %s %s", err, c.Op, c.Name), Short: c.Bytes / 2}
	}
}

// Crash fails operation n and all that come after it: the process is gone, or the disk is. What
// survives is what the decorated store holds: committed blobs, and nothing else. With after,
// operation n itself still happens, only its answer is lost.
func Crash(n int, after bool) Plan {
	return func(c Call) Fault {
		if c.N < n {
			return Fault{}
		}
		return Fault{
			Err: fmt.Errorf("%w: %s %s", ErrCrashed, c.Op, c.Name), Short: c.Bytes / 2,
			After: after && c.N == n,
		}
	}
}

// Full allows capacity bytes to be written, then fails each Write with ENOSPC. Removing blobs frees
// no capacity.
func Full(capacity int) Plan {
	return func(c Call) Fault {
		if c.Op != Write {
			return Fault{}
		}
		if c.Bytes <= capacity {
			capacity -= c.Bytes
			return Fault{}
		}
		short := capacity
		capacity = 0
		return Fault{Err: fmt.Errorf("write %s: %w", c.Name, unix.ENOSPC), Short: short}
	}
}

// Store is the decorated store.
type Store struct {
	inner blob.Store
	mu    sync.Mutex
	plan  Plan // nil: everything works; guarded by mu, as is n
	n     int
}

var _ blob.Store = (*Store)(nil)

// New decorates inner. plan may be nil.
func New(inner blob.Store, plan Plan) *Store { return &Store{inner: inner, plan: plan} }

// Operations is the number of operations so far.
func (s *Store) Operations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// SetPlan replaces the plan. The count goes on.
func (s *Store) SetPlan(plan Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan = plan
}

func (s *Store) fault(op Op, name string, bytes int) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	if s.plan == nil {
		return Fault{}
	}
	return s.plan(Call{N: s.n, Op: op, Name: name, Bytes: bytes})
}

// Create implements blob.Store.
func (s *Store) Create(ctx context.Context, name string) (blob.Writer, error) {
	if f := s.fault(Create, name, 0); f.Err != nil {
		return nil, f.Err
	}
	w, err := s.inner.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	return &writer{Writer: w, s: s, name: name}, nil
}

// Open implements blob.Store.
func (s *Store) Open(ctx context.Context, name string) (blob.Object, error) {
	if f := s.fault(Open, name, 0); f.Err != nil {
		return nil, f.Err
	}
	o, err := s.inner.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &object{Object: o, s: s, name: name}, nil
}

// List implements blob.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]blob.Info, error) {
	if f := s.fault(List, prefix, 0); f.Err != nil {
		return nil, f.Err
	}
	return s.inner.List(ctx, prefix)
}

// Remove implements blob.Store.
func (s *Store) Remove(ctx context.Context, name string) error {
	f := s.fault(Remove, name, 0)
	if f.Err != nil && !f.After {
		return f.Err
	}
	return errors.Join(f.Err, s.inner.Remove(ctx, name))
}

type writer struct {
	blob.Writer
	s    *Store
	name string
}

func (w *writer) Write(p []byte) (int, error) {
	f := w.s.fault(Write, w.name, len(p))
	if f.Err == nil {
		return w.Writer.Write(p)
	}
	if f.After {
		f.Short = len(p)
	}
	n, err := w.Writer.Write(p[:f.Short])
	return n, errors.Join(f.Err, err)
}

func (w *writer) Commit() error {
	f := w.s.fault(Commit, w.name, 0)
	if f.Err == nil || f.After {
		return errors.Join(f.Err, w.Writer.Commit())
	}
	// A store that fails to commit leaves nothing behind.
	return errors.Join(f.Err, w.Writer.Abort())
}

type object struct {
	blob.Object
	s    *Store
	name string
}

func (o *object) ReadAt(p []byte, off int64) (int, error) {
	f := o.s.fault(Read, o.name, len(p))
	if f.Err == nil {
		return o.Object.ReadAt(p, off)
	}
	n, err := o.Object.ReadAt(p[:f.Short], off)
	return n, errors.Join(f.Err, err)
}
