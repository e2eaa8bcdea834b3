package cache

import (
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
)

// Object is an open blob. Its methods may be called by many goroutines at once, Close last.
type Object struct {
	inner  blob.Object
	cache  *Cache
	f      *file
	close  sync.Once
	pinned bool // guarded by file.mu
}

var (
	_ blob.Object    = (*Object)(nil)
	_ blob.Describer = (*Object)(nil)
)

func (o *Object) Size() int64 { return o.f.size }

// Medium implements blob.Describer.
func (o *Object) Medium() blob.Medium { return blob.MediumOf(o.inner) }

// Close implements blob.Object.
func (o *Object) Close() (err error) {
	o.close.Do(func() {
		o.unpin()
		o.cache.release(o.f)
		err = o.inner.Close()
	})
	return err
}

// Pin keeps what is cached of the blob, and what will be, until the object is closed.
func (o *Object) Pin() error {
	f := o.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if o.pinned {
		return nil
	}
	if f.pins == 0 {
		// An eviction has the lock for a moment.
		if err := f.lock(unix.F_RDLCK, lockPinned, true); err != nil {
			return fmt.Errorf("pin in the cache: %w", err)
		}
	}
	f.pins++
	o.pinned = true
	return nil
}

func (o *Object) unpin() {
	f := o.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if !o.pinned {
		return
	}
	o.pinned = false
	if f.pins--; f.pins == 0 {
		_ = f.lock(unix.F_UNLCK, lockPinned, false)
	}
}

// ReadAt implements io.ReaderAt.
func (o *Object) ReadAt(p []byte, off int64) (n int, err error) {
	switch {
	case off < 0:
		return o.inner.ReadAt(p, off) // it has an error for that
	case off >= o.f.size:
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	case int64(len(p)) > o.f.size-off:
		p, err = p[:o.f.size-off], io.EOF
	}
	if rerr := o.read(p, off); rerr != nil {
		return 0, rerr
	}
	return len(p), err
}

// read reads slot by slot what is cached, and what lies between in as few reads as possible.
func (o *Object) read(p []byte, off int64) error {
	var missing int64 = -1 // where the bytes begin that are missing before pos
	end := off + int64(len(p))
	for pos := off; pos < end; {
		next := min((pos/slotSize+1)*slotSize, end)
		if o.cached(p[pos-off:next-off], pos) {
			if err := o.fetch(p, off, missing, pos); err != nil {
				return err
			}
			missing = -1
		} else if missing < 0 {
			missing = pos
		}
		pos = next
	}
	return o.fetch(p, off, missing, end)
}

// blocks returns the blocks that have the bytes from from to before to.
func blocks(from, to int64) (first, end int) {
	return int(from / blockSize), int((to + blockSize - 1) / blockSize)
}

// cached reads bytes of one slot if all of them are cached.
func (o *Object) cached(p []byte, off int64) bool {
	first, end := blocks(off, off+int64(len(p)))
	if !o.f.has(first, end) {
		return false
	}
	at, _ := o.f.block(first)
	last, n := o.f.block(end - 1)
	buf := o.cache.buffers.Get().(*[]byte)
	defer o.cache.buffers.Put(buf)
	b := (*buf)[:last+int64(n)-at]
	ok, damaged := o.f.read(first, end, b)
	if damaged {
		o.cache.stats.Damaged.Add(1)
	}
	if !ok {
		return false
	}
	copy(p, b[off-at:])
	o.cache.stats.hit(len(p))
	return true
}

// fetch reads the bytes from from to before to, if from is not negative. p has those from off on.
func (o *Object) fetch(p []byte, off, from, to int64) error {
	if from < 0 || from >= to {
		return nil
	}
	p = p[from-off : to-off]
	unit := int64(o.cache.o.Fetch)
	if to-from >= unit {
		// It is large enough for a request of its own.
		first, end := blocks(from, to)
		b, at, err := o.get(first, end)
		if err != nil {
			return err
		}
		copy(p, b[from-at:])
		o.cache.stats.miss(len(p), len(b))
		return nil
	}
	for len(p) > 0 {
		b, at, err := o.unit(from / unit)
		if err != nil {
			return err
		}
		n := copy(p, b[from-at:])
		o.cache.stats.miss(n, 0)
		p, from = p[n:], from+int64(n)
	}
	return nil
}

// get reads whole blocks from the store, and has them cached.
func (o *Object) get(first, end int) (b []byte, at int64, err error) {
	at, _ = o.f.block(first)
	last, n := o.f.block(end - 1)
	b = make([]byte, last+int64(n)-at)
	if n, err := o.inner.ReadAt(b, at); n != len(b) {
		return nil, 0, noEOF(err)
	}
	o.cache.insert(o.f, first, b)
	return b, at, nil
}

// noEOF is an error in any case: the size of a blob is known.
func noEOF(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// unit reads what is fetched at once, together with all who want the same. Nobody does anything else while
// others wait for it.
func (o *Object) unit(n int64) (b []byte, at int64, err error) {
	unit := int64(o.cache.o.Fetch)
	f, mine := o.cache.flight(flightKey{o.f.key, n})
	if !mine {
		<-f.done
		return f.b, n * unit, f.err
	}
	defer o.cache.land(flightKey{o.f.key, n}, f)
	first, end := blocks(n*unit, min((n+1)*unit, o.f.size))
	f.b, _, f.err = o.get(first, end)
	o.cache.stats.Fetched.Add(int64(len(f.b)))
	return f.b, n * unit, f.err
}
