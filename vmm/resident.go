package vmm

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

// resident asks the kernel which pages of a file are in the page cache. Just before the first
// instruction of a restored machine these are the prefetched pages, whoever fetched them, on any
// file system. It touches no page.
func resident(f *os.File, size uint64) (*wss.Bitmap, error) {
	if err := mayAsk(f); err != nil {
		return nil, err
	}
	// A mapping of its own: the guest's has marks of the tracker in its page table.
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	defer unix.Munmap(b)
	pages := wss.NewBitmap(size / pageSize)
	vec := make([]byte, min(residentBatch, size/pageSize))
	for first := uint64(0); first < size/pageSize; first += residentBatch {
		n := min(residentBatch, size/pageSize-first)
		if err := mincoreParallel(b[first*pageSize:(first+n)*pageSize], vec[:n]); err != nil {
			return nil, fmt.Errorf("mincore: %w", err)
		}
		setResident(pages, first, vec[:n])
	}
	return pages, nil
}

const (
	residentBatch = 1 << 20 // pages asked about at a time: a byte of memory each
	residentShare = 1 << 14 // pages that are worth a goroutine
)

// mincoreParallel is mincore on several CPUs: the kernel looks up each page in the page cache, some
// 80 ns each, while somebody waits for the machine.
func mincoreParallel(mapping, vec []byte) error {
	workers := min(runtime.GOMAXPROCS(0), max(len(vec)/residentShare, 1))
	share := (len(vec) + workers - 1) / workers
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		part := vec[min(i*share, len(vec)):min((i+1)*share, len(vec))]
		if len(part) == 0 {
			break
		}
		wg.Go(func() { errs[i] = mincore(mapping[i*share*pageSize:][:len(part)*pageSize], part) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// setResident puts runs of set bits into the bitmap.
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

// mayAsk says whether mincore tells this process the truth about the file: to strangers the kernel
// answers that everything is there (CVE-2019-5489).
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
	return fmt.Errorf("%s belongs to somebody else: the kernel does not tell what of it is cached",
		f.Name())
}
