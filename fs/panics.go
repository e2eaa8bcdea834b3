package fs

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A panic in a request is an error of that request, and one in a goroutine of the server ends the work
// of that goroutine; the process goes on serving the running machines. What a panic leaves half done is
// undone by deferred calls, or by the caller that gets the panicError.

// A panicError is a panic that was caught.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// rescue is deferred by the handlers of requests. It turns a panic into EIO; status is nil where a
// request has none.
func (s *Server) rescue(what string, status *fuse.Status) {
	p := recover()
	if p == nil {
		return
	}
	s.panicked(what, p)
	if status != nil {
		*status = fuse.EIO
	}
}

// rescueErr is rescue for functions that return an error.
func (s *Server) rescueErr(what string, err *error) {
	if p := recover(); p != nil {
		s.panicked(what, p)
		*err = &panicError{p}
	}
}

// panicked counts a panic and logs it, once a second at most: a machine may ask for what panics again and
// again.
func (s *Server) panicked(what string, value any) {
	s.metrics.panics.Add(1)
	if s.fell.allows(time.Since(s.began), time.Second) {
		s.log.Error("panic in "+what, "panic", fmt.Sprint(value), "stack", string(debug.Stack()))
	}
}

// closeImage closes what is made of an image, and the image. It is called with locks held.
func (s *Server) closeImage(h *openImage) (err error) {
	defer s.rescueErr("closing an image", &err)
	err = h.composed.close()
	return errors.Join(err, h.mem.Close())
}
