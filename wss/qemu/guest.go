package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/thawfs/thaw/wss/scan"
)

// ErrOtherMemory says that a file is not the memory of the machine, or not mapped shared.
var ErrOtherMemory = errors.New("not the memory of this machine")

// patience is how long QEMU may take for a command that is not cut short.
const patience = 10 * time.Second

// Guest is a running QEMU whose access bits are scanned. It implements [scan.Guest].
type Guest struct {
	qmp *QMP
	ram *os.File

	places  []place // ascending by address
	running bool    // before the pause
}

// Open connects to a machine by the path of its QMP socket and of the file that is its RAM. The
// context ends the opening, and what the scan does while the machine runs.
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

// NewGuest is Open for a connection that is there already. Close ends it.
func NewGuest(ctx context.Context, q *QMP, memory string) (*Guest, error) {
	ram, err := os.OpenFile(memory, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	g := &Guest{qmp: q, ram: ram}
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
	st, err := g.ram.Stat()
	if err != nil {
		return err
	}
	text, err := g.monitor(ctx, "info mtree -f")
	if err != nil {
		return err
	}
	g.places, err = parsePlaces(text, uint64(st.Size()))
	if err != nil {
		return fmt.Errorf("qemu: where RAM lies: %w", err)
	}
	return nil
}

// Pages is the number of pages of the memory file: the image that a working set is of.
func (g *Guest) Pages() (uint64, error) {
	st, err := g.ram.Stat()
	if err != nil {
		return 0, err
	}
	return uint64(st.Size()) / pageSize, nil
}

// verify compares the page table that a vCPU uses as QEMU has it with what the file has. In a file
// that is of another machine, or that this one has mapped private, bits would be cleared in vain, or
// destroy something.
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
		if _, n := find(g.places, table); c.CR0&paging != 0 && n >= pageSize {
			return g.same(table)
		}
	}
	return nil // it has not come so far; the scanner will say so
}

// same compares a page of guest memory.
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
			"share=on)", gpa, g.ram.Name(), ErrOtherMemory)
	}
	return nil
}

// monitor runs a command of the human monitor, which tells what QMP has no command for.
func (g *Guest) monitor(ctx context.Context, line string) (text string, err error) {
	err = g.qmp.Run(ctx, "human-monitor-command", map[string]any{"command-line": line}, &text)
	return text, err
}

// uncut is the context of what is done while the machine is paused. It does not end with the
// scan: a connection that is cut within an answer is of no use, and without it the machine could not
// be told to go on.
func uncut() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// ReadAt implements scan.Guest: guest-physical memory.
func (g *Guest) ReadAt(p []byte, gpa int64) (int, error) {
	return g.transfer(p, uint64(gpa), g.ram.ReadAt)
}

// WriteAt implements scan.Guest.
func (g *Guest) WriteAt(p []byte, gpa int64) (int, error) {
	return g.transfer(p, uint64(gpa), g.ram.WriteAt)
}

func (g *Guest) transfer(p []byte, gpa uint64, call func([]byte, int64) (int, error)) (done int,
	err error) {
	for done < len(p) {
		at, n := find(g.places, gpa+uint64(done))
		if n == 0 {
			return done, fmt.Errorf("qemu: no RAM at %#x: %w", gpa+uint64(done), io.ErrUnexpectedEOF)
		}
		n = min(n, uint64(len(p)-done))
		m, err := call(p[done:done+int(n)], int64(at))
		done += m
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// RAM implements scan.Guest.
func (g *Guest) RAM() []scan.Region {
	var list []scan.Region
	for _, p := range g.places {
		list = append(list, scan.Region{GFN: p.gpa / pageSize, Count: p.size / pageSize,
			Page: p.offset / pageSize})
	}
	return list
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

// Flushes implements scan.Guest. QEMU has no command that flushes what its vCPUs know of page tables,
// and none is needed where the guest has several processes: the software CPU (-accel tcg) drops all
// its translations whenever the guest loads CR3, and a CPU of hardware those of user space, or those
// that it needs the room of. Whether that is enough is for the scanner to see.
//
// (To log dirty pages, `calc-dirty-rate` with a dirty bitmap, would flush; QEMU 7.2 with tcg aborts
// when it is asked to while the machine is stopped.)
func (g *Guest) Flushes() []scan.Flush {
	return []scan.Flush{
		{Name: "the guest's own switches of address space", Do: func() error { return nil }},
	}
}

// Close ends the connection; the machine goes on.
func (g *Guest) Close() error { return errors.Join(g.ram.Close(), g.qmp.Close()) }
