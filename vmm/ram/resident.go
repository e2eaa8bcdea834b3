package ram

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// Resident returns the pages of the memory that are in the page cache. Just before the first
// instruction of a restored machine these are the prefetched pages, whichever process fetched them. It
// touches no page.
func (m *Memory) Resident() (*wss.Bitmap, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	pages := wss.NewBitmap(m.size / pageSize)
	for _, src := range sourcesOf(m.pieces) {
		if err := src.resident(pages, m.pieces, m.size); err != nil {
			return nil, err
		}
	}
	return pages, nil
}

// resident adds the resident pages of the pieces that lie in the file s.
func (s *source) resident(pages *wss.Bitmap, pieces []piece, size uint64) error {
	if err := mayAsk(s.file); err != nil {
		return err
	}
	// Not the guest's mapping, whose page table has marks of the tracker.
	b, err := mapFile(s.file, size, mapPrivate)
	if err != nil {
		return err
	}
	defer b.unmap()
	var vec []byte
	for _, p := range pieces {
		if p.src != s {
			continue
		}
		for first := p.First; first < p.End(); first += residentBatch {
			n := min(residentBatch, p.End()-first)
			if uint64(len(vec)) < n {
				vec = make([]byte, n)
			}
			if err := s.askParallel(b, first, vec[:n]); err != nil {
				return err
			}
			setResident(pages, first, vec[:n])
		}
	}
	return nil
}

const (
	residentBatch = 1 << 20 // pages of one batch: a byte of memory for each
	residentShare = 1 << 14 // the least pages for a further goroutine
	residentChunk = 1 << 9  // pages of one cachestat call
)

// askParallel fills in vec on several CPUs: the kernel needs about 60 ns for a page, while the user
// waits for the machine.
func (s *source) askParallel(m mapping, first uint64, vec []byte) error {
	n := uint64(len(vec))
	workers := min(uint64(runtime.GOMAXPROCS(0)), max(n/residentShare, 1))
	share := ((n+workers-1)/workers + residentChunk - 1) / residentChunk * residentChunk
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		from, to := min(i*share, n), min((i+1)*share, n)
		wg.Go(func() { errs[i] = s.ask(m, first+from, vec[from:to]) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// ask fills in vec for pages of the file from first on; bit 0 says that a page is in the page cache.
// cachestat(2) answers quickly for parts of an image that are not or completely resident, which are
// most of it; mincore(2) is used for the others.
func (s *source) ask(m mapping, first uint64, vec []byte) error {
	for at := uint64(0); at < uint64(len(vec)); at += residentChunk {
		part := vec[at:min(at+residentChunk, uint64(len(vec)))]
		off := (first + at) * pageSize
		r := unix.CachestatRange{Off: off, Len: uint64(len(part)) * pageSize}
		var st unix.Cachestat_t
		err := unix.Cachestat(uint(s.file.Fd()), &r, &st, 0)
		switch {
		case err == nil && st.Cache == 0:
			clear(part)
		case err == nil && st.Cache == uint64(len(part)):
			for i := range part {
				part[i] = 1
			}
		default: // also before Linux 6.5, which has no cachestat
			if err := m.part(off, uint64(len(part))*pageSize).mincore(part); err != nil {
				return fmt.Errorf("mincore: %w", err)
			}
		}
	}
	return nil
}

// setResident adds the pages whose bit 0 is set in vec to the bitmap.
func setResident(pages *wss.Bitmap, first uint64, vec []byte) {
	for i := 0; i < len(vec); {
		if vec[i]&1 == 0 {
			i++
			continue
		}
		from := i
		for i < len(vec) && vec[i]&1 != 0 {
			i++
		}
		pages.SetRange(first+uint64(from), uint64(i-from))
	}
}

// mayAsk fails if mincore does not tell this process the truth about the file: to a process that
// neither owns the file nor may write to it, the kernel answers that all pages are resident
// (CVE-2019-5489).
func mayAsk(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	euid := os.Geteuid()
	if euid == 0 || ok && int(sys.Uid) == euid {
		return nil
	}
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS) == nil {
		return nil
	}
	return fmt.Errorf("%s belongs to another user: the kernel does not tell which of its pages are cached",
		f.Name())
}
