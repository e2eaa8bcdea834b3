package fs

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A ledgerModel is what a ledger must say.
type ledgerModel struct {
	rows  map[ledgerKey]ledgerRow
	opens map[uint64]ledgerKey
	holes map[ledgerKey]map[uint64]bool
}

func newTestLedger(t testing.TB) *ledger {
	t.Helper()
	l, err := newLedger(ledgerHead{Mount: "/mnt", Minor: 7, Init: []byte("i"), Reply: []byte("r")}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

// reopened is the ledger as another process reads it.
func reopened(t testing.TB, l *ledger) *ledger {
	t.Helper()
	f, err := dupFile(int(l.file.Fd()), ledgerName)
	if err != nil {
		t.Fatal(err)
	}
	again, err := openLedger(f, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.close)
	return again
}

// A ledger against plain maps, in a random life with changes of hands at any time.
func TestLedger(t *testing.T) {
	const pages = 100_000
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	l := newTestLedger(t)
	m := ledgerModel{map[ledgerKey]ledgerRow{}, map[uint64]ledgerKey{}, map[ledgerKey]map[uint64]bool{}}
	holes := map[ledgerKey]*bitmap{}
	key := func() ledgerKey {
		k := ledgerKey{Name: fmt.Sprint("n", rnd.IntN(4)), ID: fmt.Sprint("id", rnd.IntN(2))}
		if rnd.IntN(3) > 0 {
			k.Clone = fmt.Sprint("c", rnd.IntN(8))
		}
		return k
	}
	handle := uint64(2)
	for i := range 1500 {
		k := key()
		row, known := m.rows[k]
		switch rnd.IntN(8) {
		case 0, 1:
			l.note(k)
			if !known {
				m.rows[k] = ledgerRow{ledgerKey: k}
			}
		case 2:
			used := slices.Contains(slices.Collect(maps.Values(m.opens)), k)
			if used || rnd.IntN(2) == 0 {
				break
			}
			l.remove(k)
			delete(m.rows, k)
			delete(m.holes, k)
			delete(holes, k)
		case 3:
			owner := &fuse.Owner{Uid: rnd.Uint32N(3)}
			l.change(k, func(r *ledgerRow) bool { r.Owner = owner; return true })
			if known {
				row.Owner = owner
				m.rows[k] = row
			}
		case 4:
			l.change(k, func(r *ledgerRow) bool { r.Poisoned = !r.Poisoned; return true })
			if known {
				row.Poisoned = !row.Poisoned
				m.rows[k] = row
			}
		case 5:
			handle += 2
			l.opened(handle, k, openMemory)
			l.opened(handle, k, openMemory) // sent again
			if known {
				m.opens[handle] = k
			}
		case 6:
			for h := range m.opens {
				l.closed(h)
				l.closed(h)
				delete(m.opens, h)
				break
			}
		case 7:
			if !known {
				break
			}
			if rnd.IntN(4) == 0 {
				l.whole(k)
				delete(holes, k)
				delete(m.holes, k)
				break
			}
			if holes[k] == nil {
				holes[k], m.holes[k] = newBitmap(pages), map[uint64]bool{}
			}
			first, count := rnd.Uint64N(pages), 1+rnd.Uint64N(200)
			holes[k].addRange(first, count)
			l.discarded(k, holes[k], first, count)
			for gfn := first; gfn < min(first+count, pages); gfn++ {
				m.holes[k][gfn] = true
			}
		}
		if i%50 == 0 {
			l = reopened(t, l)
			compareLedger(t, l, m, pages)
		}
	}
}

func compareLedger(t *testing.T, l *ledger, m ledgerModel, pages uint64) {
	t.Helper()
	rows, slots := map[ledgerKey]ledgerRow{}, map[uint32]ledgerKey{}
	for _, r := range l.all() {
		if other, twice := slots[r.slot]; twice {
			t.Fatalf("%v and %v have one slot", other, r.ledgerKey)
		}
		slots[r.slot] = r.ledgerKey
		found, err := l.holes(r.slot, pages)
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for gfn := uint64(0); found != nil && gfn < pages; gfn++ {
			if gfn = found.next(gfn, true); gfn < pages {
				got = append(got, gfn)
			}
		}
		if d := cmp.Diff(slices.Sorted(maps.Keys(m.holes[r.ledgerKey])), got); d != "" {
			t.Fatalf("discarded of %v: %s", r.ledgerKey, d)
		}
		r.slot = 0
		rows[r.ledgerKey] = r
	}
	if d := cmp.Diff(m.rows, rows, cmp.AllowUnexported(ledgerRow{})); d != "" {
		t.Fatalf("rows: %s", d)
	}
	list, err := l.open()
	if err != nil {
		t.Fatal(err)
	}
	opens := map[uint64]ledgerKey{}
	for _, o := range list {
		opens[o.handle] = slots[o.slot]
	}
	if d := cmp.Diff(m.opens, opens); d != "" {
		t.Fatalf("open files: %s", d)
	}
}

// A row that was being written for the first time is none; all others are there.
func TestLedgerTorn(t *testing.T) {
	l := newTestLedger(t)
	one, two := ledgerKey{Name: "a", ID: "1"}, ledgerKey{Name: "a", ID: "1", Clone: "x"}
	l.note(one)
	l.note(two)
	for n := range 40 {
		if _, err := l.file.WriteAt([]byte{0xff}, rowAt(l.rows[two].slot)+int64(n)); err != nil {
			t.Fatal(err)
		}
		again := reopened(t, l)
		if len(again.rows) != 1 || again.rows[one] == nil {
			t.Fatalf("after byte %d: %v", n, again.rows)
		}
	}
}

// A ledger that cannot be written is worth nothing, and says so to everybody.
func TestLedgerCannotBeWritten(t *testing.T) {
	l := newTestLedger(t)
	l.note(ledgerKey{Name: "a", ID: "1"})
	read, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", l.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	whole := l.file
	l.file = read
	l.note(ledgerKey{Name: "b", ID: "1"})
	l.file = whole
	if !l.lost {
		t.Error("it is not noted that a row could not be written")
	}
	l.check(unix.ENOSPC) // once is enough
	l.lost = false
	l.check(unix.ENOSPC)
	if _, err := openLedger(whole, testLog(t)); err == nil {
		t.Error("another server could take over with it")
	}
}

func FuzzLedger(f *testing.F) {
	good, err := seal([]byte(`{"format":1,"mount":"/m"}`), rowsAt)
	if err != nil {
		f.Fatal(err)
	}
	row, err := seal([]byte(`{"Name":"a","ID":"b","Clone":"c"}`), rowSize)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, row, []byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, []byte{1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, head, rows, opens, holes []byte) {
		fd, err := unix.MemfdCreate("fuzz", unix.MFD_CLOEXEC)
		if err != nil {
			t.Skip(err)
		}
		file := os.NewFile(uintptr(fd), "fuzz")
		defer file.Close()
		for at, b := range map[int64][]byte{0: head, rowsAt: rows, opensAt: opens, holesOf(3): holes} {
			if _, err := file.WriteAt(b, at); err != nil {
				t.Skip(err)
			}
		}
		l, err := openLedger(file, slog.New(slog.DiscardHandler))
		if err != nil {
			return
		}
		if _, err := l.open(); err != nil {
			t.Error(err)
		}
		if _, err := l.holes(3, 1000); err != nil {
			t.Error(err)
		}
		for _, r := range l.all() {
			l.remove(r.ledgerKey)
		}
	})
}
