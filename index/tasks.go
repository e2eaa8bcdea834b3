package index

import (
	"context"
	"sync"
)

// tasks runs goroutines that belong together: the first error cancels the context of all of them,
// and wait returns it when all have ended.
type tasks struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

func newTasks(ctx context.Context) *tasks {
	g := &tasks{}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

func (g *tasks) run(fn func() error) {
	g.wg.Go(func() {
		if err := fn(); err != nil {
			g.cancel(err)
		}
	})
}

// err is the error that cancelled the tasks; nil while nothing has.
func (g *tasks) err() error { return context.Cause(g.ctx) }

// wait waits for all goroutines. Their context is cancelled then.
func (g *tasks) wait() error {
	g.wg.Wait()
	err := g.err()
	g.cancel(nil)
	return err
}

// ordered runs work on many jobs in parallel, and hands them on in the order in which they were
// submitted. One goroutine submits, one receives.
type ordered[T any] struct {
	g    *tasks
	work chan *job[T]
	line chan *job[T] // jobs in their order, as many as may be under way
}

type job[T any] struct {
	v    T
	done chan struct{}
}

// newOrdered starts workers in g. depth bounds how many jobs are between submit and receive.
func newOrdered[T any](g *tasks, workers, depth int, work func() func(T) error) *ordered[T] {
	o := &ordered[T]{g: g, work: make(chan *job[T], depth), line: make(chan *job[T], depth)}
	for range workers {
		do := work() // with the state of one worker
		g.run(func() error {
			for {
				select {
				case j, ok := <-o.work:
					if !ok {
						return nil
					}
					if err := do(j.v); err != nil {
						return err
					}
					close(j.done)
				case <-g.ctx.Done():
					return nil
				}
			}
		})
	}
	return o
}

// submit adds a job; it waits while there are too many. An error is that of the tasks.
func (o *ordered[T]) submit(v T) error {
	j := &job[T]{v: v, done: make(chan struct{})}
	for _, c := range [...]chan *job[T]{o.line, o.work} {
		select {
		case c <- j:
		case <-o.g.ctx.Done():
			return o.g.err()
		}
	}
	return nil
}

// end says that no more jobs come. Without it the workers end when the context of the tasks does.
func (o *ordered[T]) end() {
	close(o.work)
	close(o.line)
}

// receive returns the next job when its work is done; false after the last one.
func (o *ordered[T]) receive() (v T, ok bool, err error) {
	var j *job[T]
	select {
	case j, ok = <-o.line:
		if !ok {
			return v, false, nil
		}
	case <-o.g.ctx.Done():
		return v, false, o.g.err()
	}
	select {
	case <-j.done:
		return j.v, true, nil
	case <-o.g.ctx.Done():
		return v, false, o.g.err()
	}
}
