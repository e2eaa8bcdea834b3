package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A Connection is a mount as another process goes on with it: who has both descriptors open keeps the mount,
// and the requests of those who use it wait for a server.
type Connection struct {
	Device int // /dev/fuse
	Ledger int // what the next server must know
}

// Connection returns the server's own, open as long as it serves; false if it has none to give: fusermount3
// has mounted it.
func (s *Server) Connection() (Connection, bool) {
	if s.device < 0 || s.ledger == nil {
		return Connection{}, false
	}
	return Connection{Device: s.device, Ledger: int(s.ledger.file.Fd())}, true
}

// A ConnectionInfo describes a connection.
type ConnectionInfo struct {
	// Mount is where it was mounted, Minor its number.
	Mount string
	Minor uint32
	// Alive: the kernel has not ended it.
	Alive bool
	// Resends: the kernel sends again what a server that died has left unanswered (Linux 6.9).
	Resends bool
	// Drained: the server before has left nothing unanswered.
	Drained bool
	// Takeovers is how often another server has gone on with it.
	Takeovers int
	// ControlSocket is where its server takes commands.
	ControlSocket string
}

// Survivable says whether the next server can go on without a lost request.
func (i ConnectionInfo) Survivable() bool { return i.Alive && (i.Resends || i.Drained) }

// Info says what a connection is. It does not touch the mount, and needs no server.
func (c Connection) Info() (ConnectionInfo, error) {
	f, err := dupFile(c.Ledger, ledgerName)
	if err != nil {
		return ConnectionInfo{}, err
	}
	defer f.Close()
	h, err := readHead(f)
	if err != nil {
		return ConnectionInfo{}, err
	}
	return ConnectionInfo{
		Mount: h.Mount, Minor: h.Minor, Alive: Connected(c.Device), Resends: resends(h.Init),
		Drained: h.Drained, Takeovers: h.Takeovers, ControlSocket: h.ControlSocket,
	}, nil
}

// Connected says whether the kernel still has the connection of an open /dev/fuse.
func Connected(device int) bool {
	fds := []unix.PollFd{{Fd: int32(device)}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&(unix.POLLERR|unix.POLLNVAL) == 0
}

// AbortConnection cuts a connection by its number, as Abort does by its path.
func AbortConnection(minor uint32) error {
	err := abortConnection(fusectl, minor)
	if err == nil {
		return nil
	}
	if own := abortByOwn(minor); own != nil {
		return errors.Join(err, own)
	}
	return nil
}

// ConnectionOf returns the number of the connection that a process serves or holds; false if it has none, or
// one of which this process may not know.
func ConnectionOf(pid int) (minor uint32, ok bool) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || target != "/memfd:"+ledgerName+" (deleted)" {
			continue
		}
		f, err := os.Open(link)
		if err != nil {
			continue
		}
		h, err := readHead(f)
		f.Close()
		if err == nil {
			return h.Minor, true
		}
	}
	return 0, false
}

// ErrLost: requests may be lost that the server before has read and not answered, and this kernel does not
// send them again. Who waits for them would wait for ever: the connection must be cut.
var ErrLost = errors.New("this kernel does not send again what the server had not answered (Linux 6.9 does)")

// TakeOver goes on with the connection of another server, which must have ended, or have let go of it by
// Drain. The store is that of the other server, or a later state of it. The mount is used all the time: what
// is asked for waits until TakeOver has returned. It does not use the mount itself, and keeps copies of the
// descriptors.
//
// An AgreementError if the options do not allow it; ErrLost.
func TakeOver(ctx context.Context, store Store, c Connection, o Options) (*Server, error) {
	o = o.withDefaults(runtime.NumCPU())
	o.TakeOver = true
	f, err := dupFile(c.Ledger, ledgerName)
	if err != nil {
		return nil, fmt.Errorf("take over a mount: %w", err)
	}
	l, err := openLedger(f, o.Log)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("take over a mount: %w", err)
	}
	s := newServer(ctx, store, l.head.Mount, o)
	s.ledger = l
	files, err := s.takeOver(ctx, c.Device)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("take over %s: %w", s.mnt, err)
	}
	s.serve()
	for _, m := range files {
		s.goOn(m)
	}
	s.goes("a survey", s.survey)
	return s, nil
}

// takeOver does all but serving. It returns the memory files that there were.
func (s *Server) takeOver(ctx context.Context, device int) (files []inheritedFile, err error) {
	h := s.ledger.head
	if err := agrees(h, s.opts); err != nil {
		return nil, err
	}
	if !h.Drained && !resends(h.Init) {
		return nil, ErrLost
	}
	if err := s.Refresh(ctx); err != nil {
		return nil, err
	}
	if files, err = s.inherit(); err != nil {
		return nil, err
	}
	if s.device, err = unix.FcntlInt(uintptr(device), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	s.minor = h.Minor
	if err := s.greetAgain(s.device, greeting{h.Init, h.Reply}, s.mountOptions()); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(s.device, false); err != nil { // Drain has set it
		return nil, os.NewSyscallError("fcntl", err)
	}
	if !h.Drained {
		// Before the first read: a request is then sent again or read, never both.
		if err := resend(s.device); err != nil {
			return nil, fmt.Errorf("have the kernel send again what was not answered: %w", err)
		}
	}
	s.ledger.setHead(func(h *ledgerHead) { h.Drained = false; h.Takeovers++ })
	s.metrics.takeovers.Store(uint64(s.ledger.head.Takeovers))
	return files, nil
}

// agrees says whether options are those that the mount was made with, as far as they cannot be changed.
func agrees(h ledgerHead, o Options) error {
	if o.Rights.Shared() != h.Shared {
		return &AgreementError{"whether other users are let in is an option of the mount itself"}
	}
	if o.ReadOnly != h.ReadOnly {
		return &AgreementError{"--read-only is an option of the mount itself"}
	}
	return nil
}

// CheckTakeOver says whether a server with these options could go on with a connection, as far as that can be
// known before: an AgreementError, or a ledger that this version does not know. Nothing is changed.
func CheckTakeOver(c Connection, o Options) error {
	o = o.withDefaults(runtime.NumCPU())
	o.TakeOver = true
	f, err := dupFile(c.Ledger, ledgerName)
	if err != nil {
		return err
	}
	l, err := openLedger(f, o.Log)
	if err != nil {
		f.Close()
		return err
	}
	defer l.close()
	if err := agrees(l.head, o); err != nil {
		return err
	}
	s := &Server{opts: o, log: o.Log, device: -1, guard: newGuard(o.Rights, self())}
	srv, reply, connect, err := meet(s.raw(), l.head.Init, s.mountOptions())
	if err != nil {
		return err
	}
	defer retire(srv, connect)
	if why := differ(l.head.Reply, reply); why != "" {
		return &AgreementError{why}
	}
	return nil
}

// inherit makes what the server before had: nodes that the kernel may know, clones, and open files.
func (s *Server) inherit() (files []inheritedFile, err error) {
	s.tree.inherit()
	bySlot := map[uint32]*memoryFile{}
	former := map[ledgerKey]*entry{}
	var gone []ledgerKey
	for _, r := range s.ledger.all() {
		e := s.formerEntry(r.ledgerKey, former)
		if e == nil {
			gone = append(gone, r.ledgerKey)
			continue
		}
		m, err := s.inheritMemory(e, r)
		if err != nil {
			return nil, err
		}
		bySlot[r.slot] = m
		files = append(files, inheritedFile{m, r.Restoring})
	}
	open, err := s.ledger.open()
	if err != nil {
		return nil, err
	}
	lost := 0
	for _, o := range open {
		m := bySlot[o.slot]
		if m == nil {
			lost++
			s.ledger.closed(o.handle)
			continue
		}
		s.inherited.add(o.handle)
		m.e.opens++
		if o.kind == openMemory {
			m.opens++
		}
	}
	for _, k := range gone {
		s.ledger.remove(k)
	}
	if lost > 0 {
		s.log.Error("files are open of checkpoints that the store does not have any more: they cannot be read",
			"files", lost)
	}
	return files, nil
}

// formerEntry is the entry of a row: the one that the tree shows; or one that is gone, if the checkpoint has
// another name now, or if the row is that of a clone of such a one; nil if its memory is not in the store.
func (s *Server) formerEntry(k ledgerKey, former map[ledgerKey]*entry) *entry {
	k.Clone = ""
	if e := s.tree.entry(k.Name); e != nil && e.id == k.ID {
		return e
	}
	if e := former[k]; e != nil {
		return e
	}
	for _, now := range s.tree.entries() {
		if now.id != k.ID {
			continue
		}
		e := s.newEntry(*now.info.Load())
		e.name, e.gone = k.Name, true
		s.tree.adopt(e.children())
		former[k] = e
		return e
	}
	return nil
}

// inheritMemory makes the memory file of a row.
func (s *Server) inheritMemory(e *entry, r ledgerRow) (*memoryFile, error) {
	if r.Clone == "" {
		return s.memoryOf(s.tree.adopt([]*node{e.child(fileMemory)})[0]), nil
	}
	n := s.tree.adopt(e.cloneNodes(r.Clone))
	m := s.memoryOf(n[len(n)-1])
	m.owner.Store(r.Owner)
	m.poisoned.Store(r.Poisoned)
	found, err := s.ledger.holes(r.slot, m.pages)
	if err != nil {
		return nil, fmt.Errorf("ledger: discarded pages: %w", err)
	}
	if found != nil {
		m.holes.Store(&holes{found, make(chan struct{})})
	}
	return m, nil
}

// noteRestoring notes in the ledger whether pages of a memory file are being brought.
func (s *Server) noteRestoring(m *memoryFile, is bool) {
	s.ledger.change(m.key(), func(r *ledgerRow) bool {
		was := r.Restoring
		r.Restoring = is
		return was != is
	})
}

// beginLedger begins the ledger of a connection that was just mounted. Without one nobody can take over.
func (s *Server) beginLedger(g greeting) {
	l, err := newLedger(ledgerHead{
		Mount: s.mnt, Minor: s.minor, Init: g.init, Reply: g.reply,
		Shared: s.opts.Rights.Shared(), ReadOnly: s.opts.ReadOnly, ControlSocket: s.opts.ControlSocket,
		Mounted: time.Now(),
	}, s.log)
	if err != nil {
		s.log.Warn("no other server can take over this mount", "error", err)
		return
	}
	for _, e := range s.tree.entries() {
		l.note(ledgerKey{Name: e.name, ID: e.id})
	}
	s.ledger = l
}

// An inheritedFile is a memory file that the server before had, and whether it was bringing its pages.
type inheritedFile struct {
	*memoryFile
	restoring bool
}

// goOn goes on with what the server before had begun with a memory file.
func (s *Server) goOn(f inheritedFile) {
	m, e := f.memoryFile, f.e
	e.mu.Lock()
	now := time.Now()
	ep := e.epoch.Load()
	open := m.opens > 0
	if open { // what was read before is in no record
		ep.start(now)
		ep.spoil(now)
	}
	e.mu.Unlock()
	switch {
	case m.poisoned.Load():
		s.tree.pin(m.node)
		s.goes("dropping a poisoned clone", func() { s.purge(m) })
	case !open && m.holes.Load() != nil:
		s.goes("ending the holes of a clone", func() { s.endHoles(m) })
	case open && f.restoring:
		s.goes("a prefetch", func() { s.restoreAgain(m) })
	}
}

// restoreAgain begins the restore of a memory file anew, if it is open still. Meanwhile it is open as for the
// prober, so that its image is there.
func (s *Server) restoreAgain(m *memoryFile) {
	if err := s.opened(m, nil); err != nil {
		s.complain(m.e, "open", err)
		return
	}
	defer s.released(m, true)
	m.e.mu.Lock()
	used := m.opens > m.probes
	m.e.mu.Unlock()
	if used {
		s.restore(m, &opening{epoch: m.sess.Load().epoch})
	}
}

// surveyAfter is more than any process takes to go on after a LOOKUP was answered. Before that an inode may
// not be there yet.
const surveyAfter = 10 * time.Second

// survey finds out what the kernel does not know any more of that which it may know: the server before was
// told and could not note it.
func (s *Server) survey() {
	wait := time.NewTimer(surveyAfter)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-s.ctx.Done():
		return
	}
	for _, id := range s.tree.inherited() {
		// An offset below zero means the attributes only: no page is waited for.
		if st := s.kernel.InodeNotify(id, -1, 0); st != fuse.ENOENT {
			continue
		}
		if n := s.tree.disown(id); n != nil {
			s.forgot(n)
		}
	}
}

// forgot does what must be done when the kernel does not know a node any more.
func (s *Server) forgot(n *node) {
	s.forgotten(n)
	if n.kind != kindClone && n.kind != kindCloneMem && n.kind != kindCloneStats {
		return
	}
	s.ledger.forgetClone(n, s.tree)
}

// cloneNodes are the nodes that belong to one clone, its memory last.
func (e *entry) cloneNodes(id string) []*node {
	return []*node{
		{kind: kindClone, e: e, detail: id}, e.cloneChild(id, fileStats), e.cloneChild(id, fileMemory),
	}
}

// lookedUp enters a node into the table for the kernel, and into the ledger what another server could not
// know of it. That comes last: see forgetClone.
func (s *Server) lookedUp(want *node) *node {
	n := s.tree.lookup(want)
	switch n.kind {
	case kindClone, kindCloneMem, kindCloneStats:
		s.ledger.note(ledgerKey{n.e.name, n.e.id, n.detail})
	}
	return n
}

// forgetClone takes a clone out when the kernel knows none of its nodes. A LOOKUP that brings one back has it
// in the table before it notes it here, so either it is seen here, or it is noted after that.
func (l *ledger) forgetClone(n *node, t *tree) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, want := range n.e.cloneNodes(n.detail) {
		if t.has(want) {
			return
		}
	}
	l.removeLocked(ledgerKey{n.e.name, n.e.id, n.detail})
}

// dupFile makes a file of a descriptor, with a copy of it.
func dupFile(fd int, name string) (*os.File, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(own), name), nil
}
