package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	magic      = "thawcach"
	version    = 1
	blockSize  = 16 << 10 // what is checked at once, in bytes
	slotSize   = 1 << 20  // what is evicted at once
	slotBlocks = slotSize / blockSize
	align      = 4096
	headerSize = align
	usedHeader = 64
	marked     = 1 << 32 // set in the check of each block that is there
)

// Bytes of a file that stand for something when they are locked.
const (
	lockOpen   = 0 // shared by all who have it open
	lockPinned = 1 // shared by all who do not want anything of it to go
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errFile means that a file is not what its name says.
var errFile = errors.New("damaged file of the cache")

// key identifies the bytes of a blob: it is a hash of everything that does.
type key [32]byte

func keyOf(store, name, tag string, size int64) (k key) {
	h := sha256.New()
	for _, s := range []string{store, name, tag, fmt.Sprint(size)} {
		fmt.Fprintf(h, "%d %s", len(s), s)
	}
	h.Sum(k[:0])
	return k
}

func (k key) path(dir string) string {
	text := hex.EncodeToString(k[:])
	return filepath.Join(dir, text[:2], text[2:])
}

// layout says where the parts of a file begin.
type layout struct {
	size          int64 // of the blob
	blocks, slots int
	table, data   int64 // offsets
}

func layoutOf(size int64) layout {
	up := func(n int64) int64 { return (n + align - 1) / align * align }
	l := layout{size: size}
	l.blocks = int((size + blockSize - 1) / blockSize)
	l.slots = int((size + slotSize - 1) / slotSize)
	l.table = headerSize + up(4*int64(l.slots))
	l.data = l.table + up(8*int64(l.blocks))
	return l
}

// block returns where a block lies in the blob.
func (l layout) block(i int) (off int64, n int) {
	off = int64(i) * blockSize
	return off, int(min(blockSize, l.size-off))
}

// file is the open file of one blob. Its methods may be called by many goroutines at once.
type file struct {
	layout
	key   key
	f     *os.File
	now   func() uint32
	sum   uint32          // of the key, as every check begins
	table []atomic.Uint64 // what this process knows of the table
	used  []atomic.Uint32 // when it last wrote that a slot is used
	refs  atomic.Int64    // who uses it; the last one closes it under Cache.opening
	mu    sync.Mutex
	pins  int // objects that want to keep it; guarded by mu
}

// openFile opens the file of a blob, or makes it. It returns unix.ENOENT if there is none and none is to be
// made.
func openFile(dir string, k key, size int64, create bool, now func() uint32) (*file, error) {
	path := k.path(dir)
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
	}
	for {
		f, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			return nil, err
		}
		c := &file{layout: layoutOf(size), key: k, f: f, now: now, sum: crc32.Checksum(k[:], castagnoli)}
		gone, err := c.begin(create)
		if err == nil && !gone {
			return c, nil
		}
		f.Close()
		if errors.Is(err, errFile) {
			err = os.Remove(path) // the next one is right, or there is none
			if errors.Is(err, os.ErrNotExist) {
				err = nil
			}
		}
		if err != nil {
			return nil, err
		}
	}
}

// begin locks a file that was just opened, and reads or makes its header and table. It says if the file was
// deleted meanwhile.
func (c *file) begin(create bool) (gone bool, err error) {
	if err := c.lock(unix.F_RDLCK, lockOpen, true); err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(c.f.Fd()), &st); err != nil || st.Nlink == 0 {
		return true, err
	}
	want := c.header()
	got := make([]byte, usedHeader)
	switch n, _ := c.f.ReadAt(got, 0); {
	case n == usedHeader && string(got) == string(want):
	case !create && n == 0:
		return false, os.ErrNotExist
	case n > 0 && string(got[:n]) != string(make([]byte, n)):
		return false, fmt.Errorf("%w: header", errFile)
	default:
		// Whoever makes it at the same time writes the same.
		if err := c.f.Truncate(c.data + c.size); err != nil {
			return false, err
		}
		if _, err := c.f.WriteAt(want, 0); err != nil {
			return false, err
		}
	}
	c.table = make([]atomic.Uint64, c.blocks)
	c.used = make([]atomic.Uint32, c.slots)
	c.load(0, c.blocks)
	return false, nil
}

func (c *file) header() []byte {
	b := append(make([]byte, 0, usedHeader), magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, blockSize)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.size))
	b = append(b, c.key[:]...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, make([]byte, usedHeader-len(b))...)
}

// lock locks a byte of the file, or unlocks it; the lock goes with the file. Without wait it returns
// unix.EAGAIN if another one has it.
func (c *file) lock(kind int16, at int64, wait bool) error {
	cmd := unix.F_OFD_SETLK
	if wait {
		cmd = unix.F_OFD_SETLKW
	}
	for {
		err := unix.FcntlFlock(c.f.Fd(), cmd, &unix.Flock_t{Type: kind, Start: at, Len: 1})
		if err != unix.EINTR {
			return err
		}
	}
}

// load reads the checks of some blocks from the file: another process may have written them.
func (c *file) load(from, to int) {
	b := make([]byte, 8*(to-from))
	n, _ := c.f.ReadAt(b, c.layout.table+8*int64(from))
	for i := range n / 8 {
		c.table[from+i].Store(binary.LittleEndian.Uint64(b[8*i:]))
	}
}

// check is what the table has for a block.
func (c *file) check(i int, data []byte) uint64 {
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], uint64(i))
	sum := crc32.Update(crc32.Update(c.sum, castagnoli, number[:]), castagnoli, data)
	return marked | uint64(sum)
}

// has says whether the blocks from from to before to may be there.
func (c *file) has(from, to int) bool {
	missing := func() bool {
		for i := from; i < to; i++ {
			if c.table[i].Load() == 0 {
				return true
			}
		}
		return false
	}
	if !missing() {
		return true
	}
	c.load(from, to)
	return !missing()
}

// read reads the blocks from from to before to into b, and says whether all of them were there, and right,
// and if not, whether one of them is not what was written. One that another process has taken is none that
// is damaged.
func (c *file) read(from, to int, b []byte) (ok, damaged bool) {
	off, _ := c.block(from)
	if n, err := c.f.ReadAt(b, c.data+off); n != len(b) {
		return false, err != nil
	}
	for i := from; i < to; i++ {
		at, n := c.block(i)
		check := c.table[i].Load()
		if check == 0 {
			return false, false
		}
		if check != c.check(i, b[at-off:][:n]) {
			c.load(i, i+1)
			return false, c.table[i].CompareAndSwap(check, 0)
		}
	}
	c.use(from/slotBlocks, (to-1)/slotBlocks)
	return true, false
}

// write makes b the blocks from from on.
func (c *file) write(from int, b []byte) error {
	off, _ := c.block(from)
	if _, err := c.f.WriteAt(b, c.data+off); err != nil {
		return err
	}
	var checks []byte
	i := from
	for rest := b; len(rest) > 0; i++ {
		_, n := c.block(i)
		check := c.check(i, rest[:n])
		c.table[i].Store(check)
		checks = binary.LittleEndian.AppendUint64(checks, check)
		rest = rest[n:]
	}
	// A slot that has bytes must have a time, or it never goes: see drop.
	for slot := from / slotBlocks; slot <= (i-1)/slotBlocks; slot++ {
		c.setUsed(slot, c.now())
	}
	_, err := c.f.WriteAt(checks, c.layout.table+8*int64(from))
	return err
}

// epoch is the minute from which minutes are counted.
const epoch = 1577836800 / 60

// minute is what a file notes as the time; it is never 0.
func minute() uint32 { return uint32(max(time.Now().Unix()/60-epoch, 1)) }

// use writes that slots are used, at most once a minute for each.
func (c *file) use(from, to int) {
	now := c.now()
	for i := from; i <= to; i++ {
		if c.used[i].Load() != now {
			c.setUsed(i, now)
		}
	}
}

func (c *file) setUsed(slot int, now uint32) {
	c.used[slot].Store(now)
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], now)
	_, _ = c.f.WriteAt(b[:], headerSize+4*int64(slot))
}

// slotTimes returns when each slot was last used; 0 where nothing is.
func (c *file) slotTimes() []uint32 {
	b := make([]byte, 4*c.slots)
	n, _ := c.f.ReadAt(b, headerSize)
	times := make([]uint32, n/4)
	for i := range times {
		times[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return times
}

// drop takes a slot out of the file. Who writes to it meanwhile writes bytes first, then the time, then the
// table: so bytes that come after the hole have a time, and checks that come after it have none.
func (c *file) drop(slot int) error {
	from, to := slot*slotBlocks, min((slot+1)*slotBlocks, c.blocks)
	zeros := make([]byte, 8*(to-from))
	if _, err := c.f.WriteAt(zeros, c.layout.table+8*int64(from)); err != nil {
		return err
	}
	if _, err := c.f.WriteAt(zeros[:4], headerSize+4*int64(slot)); err != nil {
		return err
	}
	off := int64(slot) * slotSize
	return unix.Fallocate(int(c.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
		c.data+off, min(slotSize, c.size-off))
}
