package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/thawfs/thaw/wss/ramfile"
	"github.com/thawfs/thaw/wss/scan"
)

// ErrOtherMemory says that a file is not the memory of the machine, or is not mapped shared.
var ErrOtherMemory = errors.New("not the memory of this machine")

// patience is the time limit for a command that the caller's context does not end.
const patience = 10 * time.Second

// Guest is a running QEMU whose access bits are scanned. It implements [scan.Guest].
type Guest struct {
	qmp *QMP
	ramfile.File

	running bool // the machine ran before the pause
}

// Open connects to a machine. socket is the path of its QMP socket, and memory that of the file with
// its RAM. The context ends the opening, and later the parts of the scan that run while the machine
// runs.
func Open(ctx context.Context, socket, memory string) (*Guest, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("qemu: %w", err)
	}
	q, err := NewQMP(ctx, conn)
	if err != nil {
		return nil, err
	}
	g, err := NewGuest(ctx, q, memory)
	if err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return g, nil
}

// NewGuest is Open for an existing connection. Close closes it.
func NewGuest(ctx context.Context, q *QMP, memory string) (*Guest, error) {
	ram, err := os.OpenFile(memory, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	g := &Guest{qmp: q, File: ramfile.File{File: ram}}
	err = g.findPlaces(ctx)
	if err == nil {
		err = g.verify(ctx)
	}
	if err != nil {
		ram.Close()
		return nil, err
	}
	return g, nil
}

func (g *Guest) findPlaces(ctx context.Context) error {
	st, err := g.Stat()
	if err != nil {
		return err
	}
	text, err := g.monitor(ctx, "info mtree -f")
	if err != nil {
		return err
	}
	g.Places, err = parsePlaces(text, uint64(st.Size()))
	if err != nil {
		return fmt.Errorf("qemu: find the machine's RAM: %w", err)
	}
	return nil
}

// verify compares a page table that a vCPU uses, as QEMU sees it, with the file. If the file belongs to
// another machine, or is mapped private, clearing bits in it would have no effect or damage data.
func (g *Guest) verify(ctx context.Context) (err error) {
	if err := g.Pause(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Resume()) }()
	cpus, err := g.CPUs()
	if err != nil {
		return err
	}
	for _, c := range cpus {
		const paging = 1 << 31
		table := c.CR3 &^ (pageSize - 1)
		if c.CR0&paging != 0 && g.has(table) {
			return g.same(table)
		}
	}
	return nil // no vCPU uses page tables yet, which the scanner reports
}

// has says whether a page of guest memory is in the file.
func (g *Guest) has(gpa uint64) bool {
	return slices.ContainsFunc(g.Places, func(p ramfile.Place) bool {
		return gpa >= p.GPA && gpa-p.GPA < p.Size
	})
}

// same compares a page of guest memory as QEMU sees it with the file.
func (g *Guest) same(gpa uint64) error {
	ctx, cancel := uncut()
	defer cancel()
	text, err := g.monitor(ctx, fmt.Sprintf("xp /%dxg %#x", pageSize/8, gpa))
	if err != nil {
		return err
	}
	want, err := parseWords(text)
	if err != nil {
		return fmt.Errorf("qemu: page at %#x: %w", gpa, err)
	}
	got := make([]byte, pageSize)
	if _, err := g.ReadAt(got, int64(gpa)); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("qemu: the page table at %#x is not in %s: %w (or it is not mapped with "+
			"share=on)", gpa, g.Name(), ErrOtherMemory)
	}
	return nil
}

// monitor runs a command of the human monitor, for information that no QMP command returns.
func (g *Guest) monitor(ctx context.Context, line string) (text string, err error) {
	err = g.qmp.Run(ctx, "human-monitor-command", map[string]any{"command-line": line}, &text)
	return text, err
}

// uncut returns the context for commands while the machine is paused. It does not end with the scan:
// after a command that was interrupted the connection is useless, and the machine could not be
// continued.
func uncut() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// Pause implements scan.Guest.
func (g *Guest) Pause(ctx context.Context) error {
	status, err := g.qmp.Status(ctx)
	if err != nil {
		return err
	}
	g.running = status == "running"
	ctx, cancel := uncut()
	defer cancel()
	return g.qmp.Run(ctx, "stop", nil, nil)
}

// Resume implements scan.Guest. A machine that was stopped before stays so.
func (g *Guest) Resume() error {
	if !g.running {
		return nil
	}
	ctx, cancel := uncut()
	defer cancel()
	return g.qmp.Run(ctx, "cont", nil, nil)
}

// CPUs implements scan.Guest.
func (g *Guest) CPUs() ([]scan.CPU, error) {
	ctx, cancel := uncut()
	defer cancel()
	text, err := g.monitor(ctx, "info registers -a")
	if err != nil {
		return nil, err
	}
	cpus, err := parseRegisters(text)
	if err != nil {
		return nil, fmt.Errorf("qemu: registers: %w", err)
	}
	return cpus, nil
}

// Flushes implements scan.Guest. QEMU has no command that flushes its vCPUs' translations. If the guest
// has several processes, none is needed: the software CPU (-accel tcg) drops all translations when the
// guest loads CR3; a hardware CPU drops those of user space, and replaces others over time. The scanner
// tests whether that is enough.
//
// (Logging of dirty pages, by `calc-dirty-rate` with a dirty bitmap, would flush; but QEMU 7.2 with tcg
// aborts if that is requested while the machine is stopped.)
func (g *Guest) Flushes() []scan.Flush {
	return []scan.Flush{
		{Name: "the guest's own switches of address space", Do: func() error { return nil }},
	}
}

// Close closes the connection; the machine continues.
func (g *Guest) Close() error { return errors.Join(g.File.Close(), g.qmp.Close()) }
