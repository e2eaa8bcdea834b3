package holder

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/fs"
)

// Command is the name of the hidden command that runs a holder; its arguments are those of the server.
const Command = "holder-of-a-mount"

// Names of the files that a server gives its holder. The rest is not the holder's business.
const (
	DeviceFile = "fuse"
	LedgerFile = "ledger"
)

// Options say what is held, and how.
type Options struct {
	// Args are the server's. Program is what is run; "": this one.
	Args    []string
	Program string
	// Patience is how long there may be no server; 0: 10 s.
	Patience time.Duration
	Note     func(format string, args ...any) // a message for people, one line
}

// A holder is the process.
type holder struct {
	Options
	files process.Files // that the server has given
	// next is the program of the next server; it is another one after an upgrade.
	next   string
	bounds bounds
	again  chan os.Signal // SIGTERM and SIGINT, for the server
}

// Run holds a mount until it has ended, and returns the status that its last server ended with. ready
// gets the
// report of the first server.
func Run(o Options, ready *process.Ready) (exitcode.Code, error) {
	h := &holder{Options: o, files: process.Files{}, again: make(chan os.Signal, 4)}
	h.next = h.Program
	h.bounds.patience = o.Patience
	if h.bounds.patience <= 0 {
		h.bounds.patience = patience
	}
	signal.Notify(h.again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(h.again)
	defer h.files.Close()
	for {
		end, err := h.serve(ready)
		ready = nil
		if err != nil && !h.holds() {
			return exitcode.Failure, err
		}
		if err != nil {
			h.Note("thaw: another server cannot be started: %v", err)
		}
		if !h.holds() {
			return end.status, nil
		}
		if h.next != h.Program && !end.served() {
			h.Note("thaw: %s does not serve; going on with the program before", h.next)
			h.next = h.Program
		}
		wait, why := h.bounds.died(end, time.Now())
		if why == "" {
			info, err := h.connection().Info()
			if err == nil && info.Alive && !info.Survivable() {
				why = fs.ErrLost.Error()
			}
		}
		if why != "" {
			return exitcode.ServerGone, h.giveUp(why)
		}
		h.Note("thaw: the server of this mount has died (%s); another one is started", end.how)
		time.Sleep(wait)
	}
}

// connection is the mount that is held.
func (h *holder) connection() fs.Connection {
	return fs.Connection{
		Device: int(h.files[DeviceFile].Fd()), Ledger: int(h.files[LedgerFile].Fd()),
	}
}

// holds says whether there is a mount to go on with.
func (h *holder) holds() bool {
	d, l := h.files[DeviceFile], h.files[LedgerFile]
	return d != nil && l != nil && fs.Connected(int(d.Fd()))
}

// giveUp ends the connection: who waits for the server gets an error, and so does who asks it later.
func (h *holder) giveUp(why string) error {
	info, err := h.connection().Info()
	if err == nil {
		err = fs.AbortConnection(info.Minor)
	}
	err = errors.Join(err, h.files.Close()) // which ends it, too, if no server is left that cannot die
	h.Note("thaw: the mount on %s is given up: %s", info.Mount, why)
	if err != nil {
		h.Note("thaw: cut the connection: %v", err)
	}
	h.files = process.Files{}
	return fmt.Errorf("the mount on %s is lost: %s", info.Mount, why)
}

// serve starts a server and returns when it has ended.
func (h *holder) serve(ready *process.Ready) (end, error) {
	defer ready.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return end{}, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), process.HolderFile)
	conn, err := connOf(pair[0])
	if err != nil {
		return end{}, errors.Join(err, theirs.Close())
	}
	cmd := process.Self(h.Args...)
	if h.next != "" {
		cmd = exec.Command(h.next, h.Args...)
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	ready.Give(cmd)
	given := process.Files{process.HolderFile: theirs}
	for name, f := range h.files {
		given[name] = f
	}
	given.Give(cmd)
	err = cmd.Start()
	_ = theirs.Close()
	ready.Close()
	if err != nil {
		_ = conn.Close()
		return end{}, err
	}
	return h.watch(begin(cmd, conn)), nil
}

// watch follows the life of a server.
func (h *holder) watch(l *life) end {
	late := time.NewTimer(h.bounds.left(time.Now()))
	defer late.Stop()
	if !h.holds() {
		late.Stop() // it is the first one: nobody waits for it yet
	}
	messages := l.messages
	for {
		select {
		case m, ok := <-messages:
			if !ok {
				messages = nil
			}
			h.heed(l, m)
			if !l.ready.IsZero() {
				late.Stop()
			}
		case sig := <-h.again:
			_ = l.cmd.Process.Signal(sig) // it may have ended
		case <-late.C:
			_ = l.cmd.Process.Kill()
		case <-l.dead:
			for _, m := range l.rest() {
				h.heed(l, m)
			}
			return l.end()
		}
	}
}

// heed does what a server asks for.
func (h *holder) heed(l *life, m process.Message) {
	switch name := m.Name(); {
	case m.Is("FDSTORE") && name != "" && m.File != nil:
		h.drop(name)
		h.files[name] = m.File
		return
	case m.Is("FDSTOREREMOVE"):
		h.drop(name)
	case m.Value(ProgramVar) != "":
		h.next = m.Value(ProgramVar)
	case m.Is("READY"):
		l.ready = time.Now()
	}
	if m.File != nil {
		_ = m.File.Close()
	}
}

// ProgramVar is the variable in which a server names the program that goes on with the mount after it.
const ProgramVar = "X_THAW_PROGRAM"

func (h *holder) drop(name string) {
	if f := h.files[name]; f != nil {
		_ = f.Close()
		delete(h.files, name)
	}
}

func connOf(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), process.HolderFile)
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}
