package fs

import (
	"encoding/json"
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// resent is the bit in a request's number that says that another server may have begun with it.
const resent = 1 << 63

// Open implements fuse.RawFileSystem. Opening memory is the request to restore: it returns when the
// pages are in the page cache. An interrupt does not end it: a Go VMM gets signals all the time,
// and an early answer would give it a restore without its working set.
func (r *raw) Open(
	_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut,
) (status fuse.Status) {
	defer r.s.rescue("OPEN", &status)
	n := r.s.tree.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	writes := in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY || in.Flags&syscall.O_TRUNC != 0
	if writes && n.kind != kindCloneMem {
		return fuse.EROFS
	}
	switch n.kind {
	case kindMemory, kindCloneMem:
		return r.s.openMemory(n, in, out)
	case kindComposed:
		return r.s.openComposed(n, in, out)
	case kindFile, kindInfo:
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	case kindStats, kindCloneStats, kindMetrics:
		text, err := r.s.live(n)
		if err != nil {
			r.s.warn("make a live file", "name", n.name, "err", err)
			return fuse.EIO
		}
		out.Fh = handle(&in.InHeader)
		r.s.liveTexts.add(out.Fh, text)
		out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH
	default:
		return fuse.Status(syscall.EISDIR)
	}
	return fuse.OK
}

// handle is the file handle for an OPEN: its number, whether or not it is sent again.
func handle(in *fuse.InHeader) uint64 { return in.Unique &^ resent }

// probeHandle is the file handle of memory that the prober has open: it keeps no holes. Each server of a
// connection has its own, since its prober ends with it.
func (s *Server) probeHandle() uint64 { return ^s.metrics.takeovers.Load() }

// openMemory opens a memory file.
func (s *Server) openMemory(n *node, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	m := s.memoryOf(n)
	fh := handle(&in.InHeader)
	if in.Unique&resent != 0 && s.inherited.take(fh) { // it was counted already, and not answered
		s.released(m, false)
		s.ledger.closed(fh)
	}
	if m.poisoned.Load() {
		return fuse.EIO
	}
	var who *fuse.Owner
	probe := s.opts.Prober != nil && s.opts.Prober.Owns(in.Pid)
	if !probe {
		who = &in.Owner
	}
	err := s.opened(m, who)
	if errors.Is(err, syscall.EMFILE) {
		s.CloseIdle() // they have packs open, and nobody uses them
		err = s.opened(m, who)
	}
	switch {
	case errors.Is(err, errForeign):
		return fuse.EACCES
	case errors.Is(err, ErrNotFound):
		return fuse.ENOENT // it was removed, and the tree does not know yet
	case errors.Is(err, ErrReplaced):
		return fuse.Status(syscall.ESTALE) // the kernel looks the name up again
	case errors.Is(err, syscall.EMFILE):
		s.complain(m.e, "open: allow the server more open files (ulimit -n, LimitNOFILE)", err)
		return fuse.Status(syscall.ENFILE) // EMFILE would be the limit of the one who opens it
	case err != nil:
		s.complain(m.e, "open", err)
		return fuse.EIO
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	if probe {
		out.Fh = s.probeHandle()
		return fuse.OK
	}
	out.Fh = fh
	if m.clone != "" {
		s.ledger.change(m.key(), func(r *ledgerRow) bool {
			was := r.Owner
			r.Owner = m.owner.Load()
			return was == nil
		})
	}
	s.ledger.opened(fh, m.key(), openMemory)
	// The kernel sends no RELEASE for an open that failed.
	answered := false
	defer func() {
		if !answered {
			s.released(m, false)
			s.ledger.closed(fh)
		}
	}()
	s.metrics.opens.Add(1)
	s.serveOpen(m, in)
	if m.poisoned.Load() {
		return fuse.EIO
	}
	answered = true
	return fuse.OK
}

// serveOpen does what an open asks for: it returns when the pages are there, or cannot be brought. A
// restore that is cut short because the image is made cold, or has got a new working set, begins
// again: once for each time that happens.
func (s *Server) serveOpen(m *memoryFile, in *fuse.OpenIn) {
	o := opening{who: reader(in.Pid), study: s.prepare(s.study(m)), id: s.restores.next()}
	m.sess.Load().opens.Add(1)
	f := s.restore(m, &o)
	for ; f != nil; f = s.restore(m, &o) {
		if in.Unique&resent != 0 {
			break
		}
		s.wait(f)
		if !f.cut.Load() || m.poisoned.Load() || s.ctx.Err() != nil {
			break
		}
	}
	s.returned(m, &o, in.Pid, f)
}

// An opening is an open in progress. Each epoch and each session that begin meanwhile note it once.
type opening struct {
	who   Reader
	id    string
	epoch *epoch
	sess  *session
	last  *restored
	study *study // nil: what it shows is not looked for
}

func (o *opening) meets(ep *epoch) {
	if o.epoch != ep {
		o.epoch = ep
		ep.readers.opened(o.who)
	}
}

// Release implements fuse.RawFileSystem.
func (r *raw) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	defer r.s.rescue("RELEASE", nil)
	n := r.s.tree.node(in.NodeId)
	counted := r.s.inherited.take(in.Fh) || in.Unique&resent == 0 && !r.s.foreignProbe(in.Fh)
	switch {
	case n != nil && (n.kind == kindMemory || n.kind == kindCloneMem):
		if counted {
			r.s.released(r.s.memoryOf(n), in.Fh == r.s.probeHandle())
		}
	case n != nil && n.kind == kindComposed:
		if counted {
			r.s.releasedComposed(n.e)
		}
	default:
		r.s.liveTexts.remove(in.Fh)
	}
	r.s.ledger.closed(in.Fh) // last: until then it is open for a server that takes over
}

// foreignProbe says whether a handle is that of the prober of another server.
func (s *Server) foreignProbe(fh uint64) bool {
	return fh > ^uint64(0)>>1 && fh != s.probeHandle()
}

// live makes the present text of a file that changes all the time.
func (s *Server) live(n *node) ([]byte, error) {
	if n.kind == kindMetrics {
		return s.metrics.text()
	}
	text, err := json.MarshalIndent(s.stats(n.e, n.detail), "", "  ")
	return append(text, '\n'), err
}
