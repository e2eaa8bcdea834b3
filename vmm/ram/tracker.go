package ram

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// tracker finds which pages of a private mapping the guest has touched, and which it has changed.
//
// It is one userfaultfd, registered for asynchronous write-protection (Linux 6.7). There is no handler:
// the kernel resolves a write fault itself and only remembers it. The registration has two effects.
// Every page is marked as protected, so a missing mark means "written". And the kernel stops mapping
// the neighbours of a page that is read (fault-around, 16 pages at once), so "present in the page
// table" means "touched". PAGEMAP_SCAN reads both from the page table, exactly, at any time, without
// stopping the guest.
//
// Without the feature changed pages are still exact: a present page of a private file mapping that is
// not a page of the file is a copy made on write. Touched pages are not exact: their neighbours count,
// too.
type tracker struct {
	mapping mapping
	uffd    int    // -1: not available
	why     string // why it is not available
	pagemap bool   // read /proc/self/pagemap: no PAGEMAP_SCAN either
}

// newTracker starts tracking for a mapping that has not been touched yet.
func newTracker(m mapping) *tracker {
	t := &tracker{mapping: m, uffd: -1}
	if err := t.arm(); err != nil {
		t.why = err.Error()
	}
	return t
}

// ProbeTracker tests whether touched pages are exact on this host. The error says why not.
func ProbeTracker() error {
	mem, err := New(pageSize)
	if err != nil {
		return err
	}
	defer mem.Close()
	m, err := mapFile(mem.pieces[0].src.file, pageSize, mapPrivate)
	if err != nil {
		return err
	}
	defer m.unmap()
	t := newTracker(m)
	defer t.Close()
	if !t.exact() {
		return errors.New(t.why)
	}
	return nil
}

// arm registers the mapping.
func (t *tracker) arm() error {
	// USER_MODE_ONLY needs no privileges, and asynchronous protection needs no handler.
	fd, err := userfaultfd(unix.O_CLOEXEC | unix.O_NONBLOCK | uffdUserModeOnly)
	if err != nil {
		return fmt.Errorf("userfaultfd: %w", err)
	}
	err = uffdHandshake(fd, uffdFeatureWPAsync|uffdFeatureWPUnpopulated)
	if err == nil {
		err = uffdRegister(fd, t.mapping, uffdRegisterModeWP)
	}
	if err == nil {
		// This also marks the entries of pages that are not present yet.
		err = uffdProtect(fd, t.mapping)
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("asynchronous write-protection: %w", err)
	}
	t.uffd = fd
	return nil
}

// protect starts again: pages that were written so far no longer count as written. They still count
// as touched.
func (t *tracker) protect() error {
	if err := uffdProtect(t.uffd, t.mapping); err != nil {
		return fmt.Errorf("UFFDIO_WRITEPROTECT: %w", err)
	}
	return nil
}

// exact says whether touched pages are exact.
func (t *tracker) exact() bool { return t.uffd >= 0 }

// Close ends the tracking. The marks go with the descriptor.
func (t *tracker) Close() error {
	if t.uffd < 0 {
		return nil
	}
	return unix.Close(t.uffd)
}

// scan returns the pages that were touched since the mapping was made, and those of them that were
// changed. The guest may run meanwhile.
func (t *tracker) scan() (touched, dirty *wss.Bitmap, err error) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	pages := t.mapping.size / pageSize
	touched, dirty = wss.NewBitmap(pages), wss.NewBitmap(pages)
	if !t.pagemap {
		err = t.scanRanges(f, touched, dirty)
		if !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL) {
			return touched, dirty, err
		}
		t.pagemap = true // before Linux 6.7
	}
	return touched, dirty, t.readPagemap(f, touched, dirty)
}

// scanRanges is scan by PAGEMAP_SCAN.
func (t *tracker) scanRanges(f *os.File, touched, dirty *wss.Bitmap) error {
	base := t.mapping.addr
	regions := make([]pageRegion, 4096)
	mask := uint64(pageIsPresent | pageIsSwapped)
	for at, end := base, base+uintptr(t.mapping.size); at < end; {
		n, next, err := pagemapScan(int(f.Fd()), at, end, mask, regions)
		if err != nil {
			return fmt.Errorf("PAGEMAP_SCAN: %w", err)
		}
		for _, r := range regions[:n] {
			first := uint64(uintptr(r.Start)-base) / pageSize
			t.count(touched, dirty, first, (r.End-r.Start)/pageSize, r.Categories)
		}
		if next <= at {
			return fmt.Errorf("PAGEMAP_SCAN: no progress at %#x", at)
		}
		at = next
	}
	return nil
}

// count adds pages of one category to the bitmaps. An entry with nothing but the tracker's mark looks
// like a page in swap that was not written.
func (t *tracker) count(touched, dirty *wss.Bitmap, first, n, category uint64) {
	written := category&pageIsFile == 0
	if t.exact() {
		written = category&pageIsWritten != 0
	}
	if category&pageIsPresent != 0 || category&pageIsSwapped != 0 && written {
		touched.SetRange(first, n)
		if written {
			dirty.SetRange(first, n)
		}
	}
}

// Bits of an entry in /proc/self/pagemap.
const (
	pagemapPresent  = 1 << 63
	pagemapSwapped  = 1 << 62
	pagemapFile     = 1 << 61
	pagemapUffdMark = 1 << 57
)

// readPagemap is scan for kernels without PAGEMAP_SCAN: eight bytes for each page.
func (t *tracker) readPagemap(f *os.File, touched, dirty *wss.Bitmap) error {
	pages := t.mapping.size / pageSize
	buf := make([]byte, 8*8192)
	for first := uint64(0); first < pages; {
		chunk := buf[:min(uint64(len(buf)), 8*(pages-first))]
		if _, err := f.ReadAt(chunk, int64(uint64(t.mapping.addr)/pageSize+first)*8); err != nil {
			return fmt.Errorf("/proc/self/pagemap: %w", err)
		}
		for entry := range slices.Chunk(chunk, 8) {
			t.count(touched, dirty, first, 1, category(binary.NativeEndian.Uint64(entry)))
			first++
		}
	}
	return nil
}

// category translates an entry of /proc/self/pagemap into the categories of PAGEMAP_SCAN.
func category(e uint64) (c uint64) {
	for _, bit := range [...]struct{ entry, category uint64 }{{pagemapPresent, pageIsPresent},
		{pagemapSwapped, pageIsSwapped}, {pagemapFile, pageIsFile}} {
		if e&bit.entry != 0 {
			c |= bit.category
		}
	}
	if e&pagemapUffdMark == 0 {
		c |= pageIsWritten
	}
	return c
}
