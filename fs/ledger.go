package fs

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A ledger is what another server needs to go on with the connection of this one and cannot compute: what
// was agreed at INIT, which clones the kernel may know, whose they are and what was discarded of them, and
// which files are open. It is written before the kernel learns of a thing, and read only by the server that
// comes next. It is a file in RAM that has no name (memfd_create(2)), so that a full disk does not matter;
// whoever holds /dev/fuse open holds it, too.
//
//	0          the head
//	4 KiB      a row of 512 bytes for each checkpoint and each clone, by its slot
//	1<<38      16 bytes for each open file, by its place
//	1<<40      the discarded pages of each clone, a bit for each, 1<<34 bytes from slot to slot
//
// The head and each row are written by one pwrite(2) of less than a page, with a checksum: they are there
// as they were or as they are. A ledger that cannot be written is made empty, and nobody can take over.
//
// The methods of a nil ledger do nothing: a connection whose /dev/fuse the server does not have has none.
type ledger struct {
	log *slog.Logger

	mu    sync.Mutex
	file  *os.File
	head  ledgerHead
	rows  map[ledgerKey]*ledgerRow
	slots places
	opens map[uint64]uint32 // where in the table, by handle
	table places
	lost  bool // it could not be written
}

// ledgerFormat is the version of the ledger. A server takes over only what it understands.
const ledgerFormat = 1

// A ledgerHead is what was agreed when the file system was mounted.
type ledgerHead struct {
	Format int    `json:"format"`
	Mount  string `json:"mount"`
	Minor  uint32 `json:"minor"`
	// Init is the kernel's INIT, and Reply what it was answered.
	Init  []byte `json:"init"`
	Reply []byte `json:"reply"`
	// Shared and ReadOnly are options of mount(2), which cannot be changed later.
	Shared   bool `json:"shared,omitempty"`
	ReadOnly bool `json:"read_only,omitempty"`
	// ControlSocket is where .thaw/socket points to.
	ControlSocket string `json:"control_socket,omitempty"`
	// Drained: the server before has answered all that it has read, so nothing need be sent again.
	Drained bool `json:"drained,omitempty"`
	// Takeovers is how often another server has gone on.
	Takeovers int       `json:"takeovers,omitempty"`
	Mounted   time.Time `json:"mounted"`
}

// A ledgerKey names a checkpoint, or a clone of it.
type ledgerKey struct{ Name, ID, Clone string }

// A ledgerRow is what is known of it.
type ledgerRow struct {
	ledgerKey
	Owner    *fuse.Owner `json:",omitempty"`
	Poisoned bool        `json:",omitempty"`
	// Restoring: pages of its working set were on their way.
	Restoring bool `json:",omitempty"`

	slot uint32
}

const (
	rowsAt   = 4 << 10
	rowSize  = 512
	opensAt  = 1 << 38
	openSize = 16
	holesAt  = 1 << 40
	holesFor = 1 << 34
	maxSlots = 1 << 22 // as many have room for their holes
)

// newLedger makes an empty ledger.
func newLedger(head ledgerHead, log *slog.Logger) (*ledger, error) {
	fd, err := unix.MemfdCreate(ledgerName, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	l := &ledger{
		log: log, file: os.NewFile(uintptr(fd), ledgerName),
		rows: map[ledgerKey]*ledgerRow{}, opens: map[uint64]uint32{},
	}
	head.Format = ledgerFormat
	l.setHead(func(h *ledgerHead) { *h = head })
	return l, nil
}

// ledgerName is what /proc/PID/fd shows of a ledger.
const ledgerName = "thaw-ledger"

// setHead changes the head.
func (l *ledger) setHead(change func(*ledgerHead)) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.head)
	l.write(l.head, 0, rowsAt)
}

// write writes a value with its checksum. l.mu is held.
func (l *ledger) write(v any, at int64, room int) {
	text, err := json.Marshal(v)
	if err == nil {
		var b []byte
		if b, err = seal(text, room); err == nil {
			_, err = l.file.WriteAt(b, at)
		}
	}
	l.check(err)
}

// check makes the ledger unusable when it could not be written: a server that went on with what it has would
// do wrong. l.mu is held.
func (l *ledger) check(err error) {
	if err == nil || l.lost {
		return
	}
	l.lost = true
	l.log.Error("no other server can take over this mount: what it would need cannot be written", "error", err)
	if err := l.file.Truncate(0); err != nil {
		l.log.Error("empty the ledger", "error", err)
	}
}

// note makes sure that something has a row.
func (l *ledger) note(k ledgerKey) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rows[k] != nil {
		return
	}
	r := &ledgerRow{ledgerKey: k, slot: l.slots.take()}
	if r.slot >= maxSlots {
		l.check(fmt.Errorf("it has room for %d clones", maxSlots))
		return
	}
	l.rows[k] = r
	l.write(r, rowAt(r.slot), rowSize)
}

// change changes a row, if there is one; with says whether anything is another now.
func (l *ledger) change(k ledgerKey, with func(*ledgerRow) bool) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.rows[k]; r != nil && with(r) {
		l.write(r, rowAt(r.slot), rowSize)
	}
}

func rowAt(slot uint32) int64 { return rowsAt + int64(slot)*rowSize }

// remove takes a row out, and what was discarded of it.
func (l *ledger) remove(k ledgerKey) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeLocked(k)
}

// removeLocked is remove. l.mu is held.
func (l *ledger) removeLocked(k ledgerKey) {
	r := l.rows[k]
	if r == nil {
		return
	}
	l.fillHoles(r.slot)
	_, err := l.file.WriteAt(make([]byte, rowSize), rowAt(r.slot))
	l.check(err)
	delete(l.rows, k)
	l.slots.give(r.slot)
}

// all returns the rows.
func (l *ledger) all() []ledgerRow {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []ledgerRow
	for _, r := range l.rows {
		list = append(list, *r)
	}
	return list
}

// sweep removes the checkpoints that are not wanted any more; their clones go by themselves.
func (l *ledger) sweep(wanted func(ledgerKey) bool) {
	if l == nil {
		return
	}
	l.mu.Lock()
	keys := slices.Collect(maps.Keys(l.rows))
	l.mu.Unlock()
	for _, k := range keys {
		if k.Clone == "" && !wanted(k) {
			l.remove(k)
		}
	}
}

// close gives up the file.
func (l *ledger) close() {
	if l != nil {
		_ = l.file.Close()
	}
}

// openLedger reads the ledger that another server has written, and goes on with it.
func openLedger(f *os.File, log *slog.Logger) (*ledger, error) {
	l := &ledger{log: log, file: f, rows: map[ledgerKey]*ledgerRow{}, opens: map[uint64]uint32{}}
	head, err := readHead(f)
	if err != nil {
		return nil, err
	}
	l.head = head
	if err := l.readRows(); err != nil {
		return nil, fmt.Errorf("ledger: rows: %w", err)
	}
	if err := l.readOpens(); err != nil {
		return nil, fmt.Errorf("ledger: open files: %w", err)
	}
	return l, nil
}

// readHead reads the head of a ledger.
func readHead(f io.ReaderAt) (h ledgerHead, err error) {
	b := make([]byte, rowsAt)
	if n, err := f.ReadAt(b, 0); err != nil && n < rowsAt {
		return h, fmt.Errorf("ledger: %w", err)
	}
	text, ok := unseal(b)
	if !ok || len(text) == 0 {
		return h, fmt.Errorf("ledger: %w", errLedger)
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, fmt.Errorf("ledger: %w", err)
	}
	if h.Format != ledgerFormat {
		return h, fmt.Errorf("ledger: format %d, and this version knows %d", h.Format, ledgerFormat)
	}
	return h, nil
}

// readRows reads the rows there are. One that is damaged was being written when its server was killed, for
// the first time: the kernel had not learned of it.
func (l *ledger) readRows() error {
	b := make([]byte, 128*rowSize)
	return eachData(l.file, rowsAt, opensAt, b, func(at int64, b []byte) {
		for ; len(b) >= rowSize; at, b = at+rowSize, b[rowSize:] {
			slot := uint32((at - rowsAt) / rowSize)
			text, ok := unseal(b[:rowSize])
			var r ledgerRow
			if !ok || len(text) == 0 || slot >= maxSlots || json.Unmarshal(text, &r) != nil {
				continue
			}
			r.slot = slot
			l.rows[r.ledgerKey] = &r
			l.slots.use(slot)
		}
	})
}
