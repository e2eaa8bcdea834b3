package ram

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// StartPager replaces the mapped files by a pager, which copies each page in on its first touch. touch
// is called for each first touch, with the page and the ID of the thread; lost is called when a page
// cannot be read. The guest must be paused. If it fails, nothing has changed.
func (m *Memory) StartPager(touch func(gfn uint64, thread int), lost func(error)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.own != nil {
		return errors.New("the memory is in too many pieces to be mapped again")
	}
	// Faults of the kernel must be served, too: KVM touches the pages.
	fd, err := userfaultfd(unix.O_CLOEXEC | unix.O_NONBLOCK)
	if err != nil {
		return fmt.Errorf("userfaultfd for faults of the kernel: %w", err)
	}
	if err := uffdHandshake(fd, uffdFeatureThreadID); err != nil {
		unix.Close(fd)
		return fmt.Errorf("userfaultfd: %w", err)
	}
	s := &pager{mapping: m.mapping, pieces: slices.Clone(m.pieces), touch: touch, lost: lost,
		uffd: os.NewFile(uintptr(fd), "userfaultfd"), touched: wss.NewBitmap(m.size / pageSize),
		done: make(chan struct{})}
	err = m.mapping.empty()
	if err == nil {
		err = advise(m.mapping)
	}
	if err == nil {
		err = uffdRegister(fd, m.mapping, uffdRegisterModeMissing)
	}
	if err != nil {
		all := PageRun{0, m.size / pageSize}
		r := remapping{mem: m, pieces: m.pieces, since: wss.NewBitmap(all.Count)}
		return errors.Join(fmt.Errorf("memory for userfaultfd: %w", err), r.place(all), m.rearm(),
			s.uffd.Close())
	}
	m.pager = s
	go s.serve(fd)
	return nil
}

// StopPager maps the files again and puts back the pages that the guest has changed. The guest must be
// paused. After an error the memory cannot be accessed any more.
func (m *Memory) StopPager() (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.pager
	if s == nil {
		return nil // closed
	}
	m.pager = nil
	// With the lock held and the vCPUs parked, only kernel threads that fetch pages for vCPUs can
	// fault. They continue when the descriptor is closed, and find the files.
	defer func() { err = errors.Join(err, s.uffd.Close()) }()
	if err = errors.Join(s.stop(), s.failed); err == nil {
		err = m.mapAgain(s)
	}
	if err != nil {
		return errors.Join(err, m.mapping.protect())
	}
	m.served = s.touched
	return m.rearm()
}

func (m *Memory) mapAgain(s *pager) error {
	changed, err := m.differing(s.touched)
	if err != nil {
		return err
	}
	r := remapping{mem: m, pieces: s.pieces, since: changed}
	for _, window := range carryWindows(changed, maxCarry) {
		if err := r.move(window); err != nil {
			return err
		}
	}
	if m.before != nil {
		changed = changed.Or(m.before)
	}
	m.before = changed
	return nil
}

// differing returns the pages whose contents differ from the files'. A page that was written with the
// same bytes is not among them.
func (m *Memory) differing(pages *wss.Bitmap) (*wss.Bitmap, error) {
	changed := wss.NewBitmap(pages.Len())
	now, then := make([]byte, copyChunk), make([]byte, copyChunk)
	for first, n := range pages.Runs() {
		for _, c := range Chunks(PageRun{first, n}) {
			a, b := now[:c.Count*pageSize], then[:c.Count*pageSize]
			if _, err := m.transfer(a, c.First*pageSize, mapping.read); err != nil {
				return nil, err
			}
			if _, err := readPages(m.pieces, b, c.First); err != nil {
				return nil, err
			}
			for i := uint64(0); i < c.Count; i++ {
				at, end := i*pageSize, (i+1)*pageSize
				if !bytes.Equal(a[at:end], b[at:end]) {
					changed.Set(c.First + i)
				}
			}
		}
	}
	return changed, nil
}
