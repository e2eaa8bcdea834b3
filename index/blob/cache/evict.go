package cache

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// makeRoom takes away what was not used for longest, if the limits are exceeded. One process does it at a
// time.
func (c *Cache) makeRoom() {
	lock, err := os.OpenFile(filepath.Join(c.dir, "evict.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		c.failed(err)
		return
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return // another process is at it
	}
	if err := c.evict(); err != nil {
		c.failed(err)
	}
}

func (c *Cache) evict() error {
	excess, err := c.excess()
	if err != nil || excess <= 0 {
		c.stats.full.Store(err != nil)
		return err
	}
	all, err := c.victims()
	if err != nil {
		return err
	}
	want := excess + c.o.Size/16
	var freed int64
	for _, v := range all {
		if freed >= want {
			break
		}
		n, err := c.dropSlot(v)
		if err != nil {
			return err
		}
		freed += n
	}
	c.stats.Evicted.Add(freed)
	c.stats.full.Store(freed < excess)
	return nil
}

// excess is how many bytes must go at least.
func (c *Cache) excess() (int64, error) {
	var excess int64
	if c.o.Size > 0 {
		used, err := c.usage()
		if err != nil {
			return 0, err
		}
		excess = used - c.o.Size
	}
	if c.o.MinFree > 0 {
		var st unix.Statfs_t
		if err := unix.Statfs(c.dir, &st); err != nil {
			return 0, err
		}
		least := c.o.MinFree * float64(st.Blocks)
		excess = max(excess, int64((least-float64(st.Bavail))*float64(st.Bsize)))
	}
	return excess, nil
}

// usage is what the files take on the disk.
func (c *Cache) usage() (sum int64, err error) {
	err = c.walk(func(path string, k key) error {
		var st unix.Stat_t
		err := unix.Lstat(path, &st)
		if err == nil {
			sum += st.Blocks * 512
		}
		return gone(err)
	})
	return sum, err
}

// gone is no error: files may go at any time.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// walk calls do for each file of the cache.
func (c *Cache) walk(do func(path string, k key) error) error {
	return filepath.WalkDir(c.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return gone(err)
		}
		rel, err := filepath.Rel(c.dir, path)
		if err != nil {
			return err
		}
		dir, base := filepath.Split(rel)
		b, err := hex.DecodeString(filepath.Clean(dir) + base)
		if err != nil || len(b) != len(key{}) {
			return nil // not ours
		}
		return do(path, key(b))
	})
}

// victim is a slot that may go.
type victim struct {
	path string
	key  key
	slot int
	used uint32
}

// victims returns the slots of all files that nobody has pinned, the one that was not used for longest
// first. Files that have nothing go at once.
func (c *Cache) victims() (all []victim, err error) {
	err = c.walk(func(path string, k key) error {
		f, err := inspect(path, k)
		if err != nil || f == nil {
			return err
		}
		defer f.f.Close()
		if f.lock(unix.F_WRLCK, lockPinned, false) != nil {
			return nil
		}
		for slot, used := range f.slotTimes() {
			if used > 0 {
				all = append(all, victim{path, k, slot, used})
			}
		}
		return f.removeEmpty(path)
	})
	slices.SortStableFunc(all, func(a, b victim) int { return int(a.used) - int(b.used) })
	return all, err
}

// inspect opens a file by its path, without its table. It returns nil if there is none, or if it is none of
// the cache; such a one is deleted, unless somebody is just making it.
func inspect(path string, k key) (*file, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, gone(err)
	}
	b := make([]byte, usedHeader)
	_, err = f.ReadAt(b, 0)
	c := &file{f: f, key: k}
	c.layout = layoutOf(int64(binary.LittleEndian.Uint64(b[len(magic)+8:])))
	if err == nil && bytes.Equal(b, c.header()) {
		return c, nil
	}
	defer f.Close()
	c.layout = layout{}
	return nil, c.removeEmpty(path)
}

// removeEmpty deletes a file that has no slot, unless somebody has it open.
func (c *file) removeEmpty(path string) error {
	for _, used := range c.slotTimes() {
		if used > 0 {
			return nil
		}
	}
	if c.lock(unix.F_WRLCK, lockOpen, false) != nil {
		return nil
	}
	return gone(os.Remove(path))
}

// dropSlot takes a slot away, if it was not used since it was chosen, and nobody has pinned it since. It
// returns how many bytes that freed.
func (c *Cache) dropSlot(v victim) (int64, error) {
	f, err := inspect(v.path, v.key)
	if err != nil || f == nil {
		return 0, err
	}
	defer f.f.Close()
	if f.lock(unix.F_WRLCK, lockPinned, false) != nil {
		return 0, nil
	}
	if times := f.slotTimes(); v.slot >= len(times) || times[v.slot] != v.used {
		return 0, nil
	}
	before, err := f.takes()
	if err != nil {
		return 0, err
	}
	if err := f.drop(v.slot); err != nil {
		return 0, err
	}
	after, err := f.takes()
	if err != nil {
		return 0, err
	}
	return max(before-after, 0), f.removeEmpty(v.path)
}

// takes is what the file takes on the disk.
func (c *file) takes() (int64, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(c.f.Fd()), &st)
	return st.Blocks * 512, err
}
