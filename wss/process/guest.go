package process

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/thawfs/thaw/wss/ramfile"
	"github.com/thawfs/thaw/wss/scan"
)

// Options say what cannot be found out.
type Options struct {
	// File is the path of the RAM, and FD its descriptor in the process. Without them it is the only large
	// file that the process maps shared.
	File string
	FD   *int
	// Below4G is how many bytes of RAM are below 4 GiB. 0: found out.
	Below4G uint64
}

// Guest is a machine of another process whose access bits are scanned without its registers. It
// implements [scan.Guest] for scan.TableOptions.Unseen.
type Guest struct {
	ramfile.File
	proc    *proc
	threads *threads
	flushes []scan.Flush
}

var _ scan.Guest = (*Guest)(nil)

// Open finds the RAM of the machine that a process runs. The machine goes on.
func Open(ctx context.Context, pid int, o Options) (*Guest, error) {
	p, err := openProc(pid)
	if err != nil {
		return nil, err
	}
	g := &Guest{proc: p}
	if err := g.open(ctx, o); err != nil {
		if g.File.File != nil {
			g.File.Close()
		}
		p.dir.Close()
		return nil, err
	}
	g.flushes = flushes(p)
	g.threads = newThreads(p)
	return g, nil
}

// open finds the file, and where it is in the guest's address space.
func (g *Guest) open(ctx context.Context, o Options) error {
	want, err := g.proc.wanted(o)
	if err != nil {
		return err
	}
	all, err := g.proc.mappings()
	if err != nil {
		return err
	}
	list, private := candidates(all)
	c, err := choose(list, private, want)
	if err != nil {
		return fmt.Errorf("process %d: %w", g.proc.pid, err)
	}
	if g.File.File, err = g.proc.open(c); err != nil {
		return err
	}
	st, err := g.Stat()
	if err != nil {
		return err
	}
	if size := uint64(st.Size()); c.bytes < size || size < pageSize {
		return fmt.Errorf("process %d: %w: it maps %d bytes of the %d of %s", g.proc.pid, ErrNoRAM, c.bytes,
			size, c.path)
	}
	g.Places, err = layout(ctx, g.File, o.Below4G)
	return err
}

// wanted says which candidate the caller wants; nil: any.
func (p *proc) wanted(o Options) (func(candidate) bool, error) {
	name := o.File
	switch {
	case o.FD != nil && name != "":
		return nil, errors.New("a file and a descriptor: only one can be the RAM")
	case o.FD != nil:
		name = p.path("fd", fmt.Sprint(*o.FD))
	case name == "":
		return nil, nil
	}
	st, err := os.Stat(name)
	if err != nil && o.FD != nil {
		return nil, fmt.Errorf("descriptor %d of process %d: %w", *o.FD, p.pid, err)
	}
	if err != nil {
		return nil, err
	}
	return func(c candidate) bool { return c.is(st) }, nil
}

// flushes lists the ways to flush that there are for the process.
func flushes(p *proc) []scan.Flush {
	if p.kvm() {
		return []scan.Flush{{Name: "KVM's mappings dropped by clear_refs", Do: func() error {
			return os.WriteFile(p.path("clear_refs"), []byte("4"), 0)
		}}}
	}
	return []scan.Flush{{Name: "the guest's own switches of address space", Do: func() error { return nil }}}
}

// Pause implements scan.Guest.
func (g *Guest) Pause(ctx context.Context) error { return g.threads.stop(ctx) }

// Resume implements scan.Guest.
func (g *Guest) Resume() error { return g.threads.resume() }

// CPUs implements scan.Guest; nothing can tell.
func (g *Guest) CPUs() ([]scan.CPU, error) { return nil, errors.ErrUnsupported }

// Flushes implements scan.Guest.
func (g *Guest) Flushes() []scan.Flush { return g.flushes }

// Close ends the use of the process, which goes on.
func (g *Guest) Close() error {
	g.threads.close()
	return errors.Join(g.File.Close(), g.proc.dir.Close())
}
