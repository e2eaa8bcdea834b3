package scan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"time"

	"github.com/thawfs/thaw/wss"
)

// ErrNoIdleTracking: the host cannot tell which pages are idle, or not to this process.
var ErrNoIdleTracking = errors.New("no idle page tracking on this host")

// Mapping is guest memory in the address space of the VMM: Count pages of the image from Page on.
type Mapping struct {
	Addr        uint64
	Page, Count uint64
}

// IdleOptions say where the kernel tells about pages. The zero value is this process's own.
type IdleOptions struct {
	Bitmap  string // "": /sys/kernel/mm/page_idle/bitmap
	Pagemap string // "": /proc/self/pagemap; of the process that has the mappings
	Flags   string // "": /proc/kpageflags
	// Refault is what the next touch of a page costs after its bit was cleared. 0: 100 ns.
	Refault time.Duration
}

const (
	defaultIdleBitmap  = "/sys/kernel/mm/page_idle/bitmap"
	defaultPagemap     = "/proc/self/pagemap"
	defaultFlags       = "/proc/kpageflags"
	defaultIdleRefault = 100 * time.Nanosecond
)

// Idle is the source that asks the host which of the VMM's pages are idle: a page that is marked
// stays so until somebody touches it, the guest (the kernel looks at the second-level tables of KVM
// too) or any other user of it. So pages of a file that several machines map count as touched if
// one of them did. Not safe for concurrent use.
//
// It needs root (frame numbers), a kernel with CONFIG_IDLE_PAGE_TRACKING, and pages on the kernel's
// LRU lists; others cannot be marked: they are left out and counted.
type Idle struct {
	bitmap, pagemap, flags *os.File // flags: nil, not to be had
	mappings               []Mapping
	pages                  uint64
	refault                time.Duration

	last  map[uint64]mark // by page, as of the last sweep
	swept bool
	// untracked is the number of pages that could not be marked at the last sweep.
	untracked uint64
}

// mark is what was done with a page. held: that of its frame was accepted.
type mark struct {
	frame uint64
	held  bool
}

// NewIdle probes for idle page tracking and returns a source over the mappings. Close it.
// ErrNoIdleTracking says that the host has none.
func NewIdle(mappings []Mapping, o IdleOptions) (*Idle, error) {
	s := &Idle{mappings: slices.Clone(mappings), refault: o.Refault, last: map[uint64]mark{}}
	if s.refault <= 0 {
		s.refault = defaultIdleRefault
	}
	for _, m := range mappings {
		if m.Addr%wss.PageSize != 0 || m.Count == 0 || m.Page > wss.MaxImagePages ||
			m.Count > wss.MaxImagePages-m.Page {
			return nil, fmt.Errorf("mapping %+v", m)
		}
		s.pages = max(s.pages, m.Page+m.Count)
	}
	if s.pages == 0 {
		return nil, errors.New("no mappings")
	}
	var err error
	if s.bitmap, err = os.OpenFile(or(o.Bitmap, defaultIdleBitmap), os.O_RDWR, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoIdleTracking, err)
	}
	if s.pagemap, err = os.Open(or(o.Pagemap, defaultPagemap)); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrNoIdleTracking, err), s.Close())
	}
	s.flags, _ = os.Open(or(o.Flags, defaultFlags)) // only large pages are the worse for it
	return s, nil
}

func or(path, otherwise string) string {
	if path == "" {
		return otherwise
	}
	return path
}

// Close closes the files.
func (s *Idle) Close() error {
	var errs []error
	for _, f := range []*os.File{s.bitmap, s.pagemap, s.flags} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Pages implements Source.
func (s *Idle) Pages() uint64 { return s.pages }

// Way implements Source.
func (s *Idle) Way() string {
	way := "idle page tracking of the host"
	if s.untracked > 0 {
		way += fmt.Sprintf(", %d pages could not be marked and are left out", s.untracked)
	}
	return way
}

// hostPage is a page of the image and where it is in the host's memory.
type hostPage struct {
	page, pfn uint64
	// head is the frame whose mark counts: that of the first page if this is one of a large page.
	head  uint64
	large bool
	lru   bool // it is on a list where it can be marked; false if that is not known
}

// Sweep implements Source. The guest is not stopped.
func (s *Idle) Sweep(ctx context.Context) (Sweep, error) {
	pages, err := s.hostPages(ctx)
	if err != nil {
		return Sweep{}, err
	}
	idle, err := s.idle(pages)
	if err != nil {
		return Sweep{}, err
	}
	r := Sweep{Fine: wss.NewBitmap(s.pages), Coarse: wss.NewBitmap(s.pages), Refault: s.refault}
	for _, p := range pages {
		if !s.touched(p, idle) {
			continue
		}
		if p.large {
			r.Coarse.Set(p.page)
		} else {
			r.Fine.Set(p.page)
			r.Refaults++
		}
	}
	return r, s.mark(pages)
}

// touched says whether a page that is present was touched since the last sweep.
func (s *Idle) touched(p hostPage, idle map[uint64]bool) bool {
	was, ok := s.last[p.page]
	switch {
	case !s.swept || idle[p.head]:
		return false
	case !ok || was.frame != p.head:
		return true // it came, or is a copy that a write made
	default:
		return was.held // else nothing is known
	}
}

// mark marks all pages as idle and looks whether that is accepted.
func (s *Idle) mark(pages []hostPage) error {
	if err := s.words(pages, func(off int64, words []byte, set func([]byte)) error {
		set(words)
		_, err := s.bitmap.WriteAt(words, off)
		return err
	}); err != nil {
		return fmt.Errorf("mark pages as idle: %w", err)
	}
	idle, err := s.idle(pages)
	if err != nil {
		return err
	}
	clear(s.last)
	s.untracked, s.swept = 0, true
	for _, p := range pages {
		// One that can be marked and is not was touched in this very moment.
		held := idle[p.head] || p.lru
		s.last[p.page] = mark{p.head, held}
		if !held {
			s.untracked++
		}
	}
	if n := uint64(len(pages)); n > 0 && s.untracked == n {
		return fmt.Errorf("%w: no page can be marked", ErrNoIdleTracking)
	}
	return nil
}

// idle reads which frames are idle still.
func (s *Idle) idle(pages []hostPage) (map[uint64]bool, error) {
	idle := map[uint64]bool{}
	err := s.words(pages, func(off int64, words []byte, _ func([]byte)) error {
		if _, err := s.bitmap.ReadAt(words, off); err != nil {
			return err
		}
		for i := range len(words) / 8 {
			w := binary.LittleEndian.Uint64(words[i*8:])
			for ; w != 0; w &= w - 1 {
				idle[uint64(off)*8+uint64(i)*64+uint64(bits.TrailingZeros64(w))] = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read idle pages: %w", err)
	}
	return idle, nil
}

// words calls f for stretches of the kernel's bitmap that have pages in them: the offset in the
// file, a buffer for the words, and a function that sets the bits of these pages in it.
func (s *Idle) words(pages []hostPage,
	f func(off int64, words []byte, set func([]byte)) error) error {
	heads := make([]uint64, 0, len(pages))
	for _, p := range pages {
		heads = append(heads, p.head)
	}
	slices.Sort(heads)
	heads = slices.Compact(heads)
	buf := make([]byte, 4096)
	for len(heads) > 0 {
		first := heads[0] / 64
		n := 1
		for n < len(heads) && heads[n]/64-heads[n-1]/64 <= 1 && heads[n]/64-first < 512 {
			n++
		}
		part := heads[:n]
		heads = heads[n:]
		words := buf[:(part[n-1]/64-first+1)*8]
		err := f(int64(first*8), words, func(words []byte) {
			clear(words)
			for _, head := range part {
				words[head/8-first*8] |= 1 << (head % 8)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	pagemapPresent = 1 << 63
	pagemapFrame   = 1<<55 - 1
	pagemapBatch   = 1 << 15 // entries read at a time

	flagLRU  = 1 << 5
	flagHead = 1 << 15
	flagTail = 1 << 16
)

// hostPages lists the pages that are present, ascending.
func (s *Idle) hostPages(ctx context.Context) ([]hostPage, error) {
	var pages []hostPage
	buf := make([]byte, pagemapBatch*8)
	for _, m := range s.mappings {
		for done := uint64(0); done < m.Count; done += pagemapBatch {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			b := buf[:min(m.Count-done, pagemapBatch)*8]
			if _, err := s.pagemap.ReadAt(b, int64(m.Addr/wss.PageSize+done)*8); err != nil {
				return nil, fmt.Errorf("read %s: %w", s.pagemap.Name(), err)
			}
			for i := range len(b) / 8 {
				entry := binary.LittleEndian.Uint64(b[i*8:])
				if entry&pagemapPresent == 0 {
					continue
				}
				p := hostPage{page: m.Page + done + uint64(i), pfn: entry & pagemapFrame}
				if p.pfn == 0 {
					return nil, fmt.Errorf("%w: frame numbers are for CAP_SYS_ADMIN only",
						ErrNoIdleTracking)
				}
				s.classify(&p)
				pages = append(pages, p)
			}
		}
	}
	return pages, nil
}

// classify finds out what the mark of a page is. Without flags each page is taken to have its own;
// the kernel then refuses to mark those in large pages, which are left out.
func (s *Idle) classify(p *hostPage) {
	p.head = p.pfn
	flags := s.flagsOf(p.pfn)
	for order := 1; flags&flagTail != 0 && order <= 18; order++ {
		head := p.pfn &^ (1<<order - 1)
		if f := s.flagsOf(head); head != p.pfn && f&flagHead != 0 {
			p.head, flags = head, f
		}
	}
	p.large = flags&flagHead != 0
	p.lru = flags&flagLRU != 0
}

// flagsOf is what the kernel says of a frame; 0: nothing.
func (s *Idle) flagsOf(pfn uint64) uint64 {
	var word [8]byte
	if s.flags == nil {
		return 0
	}
	if _, err := s.flags.ReadAt(word[:], int64(pfn*8)); err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(word[:])
}
