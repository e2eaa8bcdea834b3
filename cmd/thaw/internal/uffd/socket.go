package uffd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// listen makes the socket on which the VMM will connect. One that a dead process has left behind is replaced.
// Only the user that runs this may connect.
func listen(ctx context.Context, path string) (*control.Listener, error) {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case st.Mode()&os.ModeSocket == 0:
		return nil, exitcode.WithHint(exitcode.Exists, fmt.Errorf("%s exists, and is no socket", path),
			"give another path")
	default:
		if err := replaceable(ctx, path); err != nil {
			return nil, err
		}
	}
	return control.ListenAt(path)
}

// How long one who listens is given to show that it is not just ending, and all of that may take: a
// pager that was killed is followed by its guard, which turns away who comes.
const (
	stayPatience    = 200 * time.Millisecond
	replacePatience = 2 * time.Second
)

// replaceable says why a socket must not be replaced: somebody listens.
func replaceable(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, replacePatience)
	defer cancel()
	err := errEnding
	for errors.Is(err, errEnding) && ctx.Err() == nil {
		err = listened(ctx, path)
	}
	if errors.Is(err, control.ErrNoServer) {
		return nil
	}
	return exitcode.WithHint(exitcode.Exists, fmt.Errorf("socket %s: %w", path, err),
		"each VM needs a socket of its own: give another path")
}

var errEnding = errors.New("a process listens on it that is ending")

// listened says who listens on a socket.
func listened(ctx context.Context, path string) error {
	conn, err := control.Dial(ctx, path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(stayPatience)); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return errEnding
	}
	return errors.New("a process listens on it")
}

// A hello is what a VMM sends, as far as it came.
type hello struct {
	text []byte
	fds  []int
	// depends: a userfaultfd came, so that who has sent it depends on its memory's being served.
	depends bool
}

// helloPatience is how long a message may take. A VMM sends it at once.
const helloPatience = 10 * time.Second

// errNobody: who connected sent nothing, as one who looks whether somebody listens.
var errNobody = errors.New("nothing was sent")

// receive reads a message until it is complete. What came of it is given with an error too.
func receive(ctx context.Context, conn *net.UnixConn) (h hello, wire []wireRegion, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(helloPatience)); err != nil {
		return h, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf, control := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*maxFDs))
	for {
		n, cn, flags, _, err := conn.ReadMsgUnix(buf, control)
		n, cn = max(n, 0), max(cn, 0) // -1 with an error
		if fds, ferr := descriptors(control[:cn]); ferr != nil {
			return h, nil, ferr
		} else if h.take(fds); len(h.fds) > maxFDs || flags&unix.MSG_CTRUNC != 0 {
			return h, nil, fmt.Errorf("more than %d descriptors came with the message", maxFDs)
		}
		h.text = append(h.text, buf[:n]...)
		switch {
		case ctx.Err() != nil:
			return h, nil, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return h, nil, fmt.Errorf("%w after %v: %d bytes came", errIncomplete, helloPatience, len(h.text))
		case err != nil || n == 0: // the end
			if len(h.text) == 0 && len(h.fds) == 0 {
				return h, nil, errNobody
			}
			return h, nil, fmt.Errorf("%w: the connection ended after %d bytes", errIncomplete, len(h.text))
		case len(h.text) > maxMessage:
			return h, nil, fmt.Errorf("the message has more than %d bytes", maxMessage)
		}
		if wire, err = parseRegions(h.text); !errors.Is(err, errIncomplete) {
			return h, wire, err
		}
	}
}

// maxFDs bounds the descriptors of a message, one of which is right.
const maxFDs = 16

// descriptors are those that came with a part of a message.
func descriptors(control []byte) (fds []int, err error) {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("descriptors: %w", err)
	}
	for _, m := range messages {
		if got, err := syscall.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds, nil
}

// take notes descriptors that came.
func (h *hello) take(fds []int) {
	h.fds = append(h.fds, fds...)
	h.depends = h.depends || slices.ContainsFunc(fds, isUserfaultfd)
}

// userfaultfd is the descriptor that must have come: one, that tells of nothing that cannot be served.
func (h *hello) userfaultfd() (int, error) {
	if len(h.fds) != 1 {
		return -1, fmt.Errorf("%d descriptors came with the message, and not one, the userfaultfd", len(h.fds))
	}
	if !isUserfaultfd(h.fds[0]) {
		return -1, errors.New("the descriptor that came with the message is no userfaultfd")
	}
	features, err := featuresOf(h.fds[0])
	switch {
	case err != nil:
		return -1, fmt.Errorf("features of the userfaultfd: %w", err)
	case features&featureFork != 0:
		return -1, errors.New("the VM may fork (UFFD_FEATURE_EVENT_FORK), which is not served")
	case features&featureRemap != 0:
		return -1, errors.New("the VM may move its memory (UFFD_FEATURE_EVENT_REMAP), which is not served")
	}
	return h.fds[0], nil
}

// close closes the descriptors.
func (h *hello) close() {
	for _, fd := range h.fds {
		unix.Close(fd)
	}
	h.fds = nil
}
