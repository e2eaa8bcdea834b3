package cache_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/blob/cache"
	"github.com/thawfs/thaw/tests/blobtest"
)

var lives = flag.Int("lives", 0, "random lives of a cache; 0: a few")

// TestLives: whatever happens to a directory that several caches use, a read has the bytes of its blob, or
// fails because the service does.
func TestLives(t *testing.T) {
	n := *lives
	if n == 0 {
		n = 6
	}
	if os.Getenv("THAW_TEST_LONG") != "" {
		n = max(n, 200)
	}
	seed := rand.Uint64()
	for i := range n {
		t.Run(fmt.Sprintf("%d", seed+uint64(i)), func(t *testing.T) { live(t, seed+uint64(i)) })
	}
}

// life is one directory, and who uses it.
type life struct {
	t      *testing.T
	rnd    *rand.Rand
	r      *remote
	dir    string
	now    atomic.Uint32
	caches []*cache.Cache
	stores []*cache.Store
	model  map[string][]byte
	open   []opened
	seq    int
}

// opened is an open blob, and the bytes that it had.
type opened struct {
	o    blob.Object
	name string
	data []byte
}

func live(t *testing.T, seed uint64) {
	l := &life{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), r: newRemote(), dir: t.TempDir(),
		model: map[string][]byte{}}
	l.now.Store(1)
	steps := []func(){l.put, l.put, l.openBlob, l.openBlob, l.openBlob, l.list, l.closeBlob, l.remove, l.restart,
		l.room, l.damage, l.pin, l.network, l.flush, l.tick}
	for range 2 {
		l.start(1 + l.rnd.Int64N(20<<20))
	}
	for range 400 {
		if l.rnd.IntN(2) == 0 {
			l.read()
			continue
		}
		steps[l.rnd.IntN(len(steps))]()
	}
	for _, o := range l.open {
		o.o.Close()
	}
	for _, c := range l.caches {
		c.Close()
	}
}

func (l *life) start(size int64) {
	c := open(l.t, l.dir, cache.Options{Size: size, Fetch: 16 << 10 << l.rnd.IntN(7)})
	c.SetClock(l.now.Load)
	l.caches = append(l.caches, c)
	l.stores = append(l.stores, c.Wrap(l.r, "store"))
}

func (l *life) name() string { return fmt.Sprint("b", l.rnd.IntN(5)) }

func (l *life) store() *cache.Store { return l.stores[l.rnd.IntN(len(l.stores))] }

func (l *life) put() {
	name := l.name()
	if l.model[name] != nil {
		return
	}
	l.seq++
	data := noise(l.seq, 1+l.rnd.IntN(3<<20))
	if l.rnd.IntN(3) == 0 {
		data = noise(l.seq, 1<<20) // of the same size as others
	}
	blobtest.Put(l.t, l.store(), name, data)
	l.model[name] = data
}

func (l *life) remove() {
	name := l.name()
	err := l.store().Remove(l.t.Context(), name)
	if there := l.model[name] != nil; there != (err == nil) {
		l.t.Fatalf("remove: there %v, %v", there, err)
	}
	delete(l.model, name)
}

func (l *life) openBlob() {
	name := l.name()
	o, err := l.store().Open(l.t.Context(), name)
	if l.r.broken.Load() && errors.Is(err, errBroken) {
		return
	}
	data := l.model[name]
	if err != nil {
		if data != nil || !errors.Is(err, blob.ErrNotFound) {
			l.t.Fatalf("open %s: %v", name, err)
		}
		return
	}
	// A listing may be older than the blob: then its size tells, or else reads do.
	l.open = append(l.open, opened{o, name, data})
}

func (l *life) closeBlob() {
	if len(l.open) == 0 {
		return
	}
	i := l.rnd.IntN(len(l.open))
	l.open[i].o.Close()
	l.open = append(l.open[:i], l.open[i+1:]...)
}

func (l *life) read() {
	if len(l.open) == 0 {
		return
	}
	o := l.open[l.rnd.IntN(len(l.open))]
	size := int(o.o.Size())
	off := l.rnd.IntN(size)
	n := 1 + l.rnd.IntN(size-off)
	if l.rnd.IntN(2) == 0 {
		n = min(n, 1+l.rnd.IntN(30_000))
	}
	p := make([]byte, n)
	_, err := o.o.ReadAt(p, int64(off))
	switch {
	case errors.Is(err, errBroken) && l.r.broken.Load():
	case errors.Is(err, blob.ErrNotFound) && !bytes.Equal(l.model[o.name], o.data):
	case errors.Is(err, blob.ErrNotFound) && size != len(o.data): // by an old listing
	case err != nil:
		l.t.Fatalf("read: %v", err)
	case l.isOld(o, p, off):
	case size != len(o.data) || !bytes.Equal(p, o.data[off:off+n]):
		l.t.Fatalf("%d bytes at %d of %s are wrong", n, off, o.name)
	}
}

// isOld says whether bytes are those of an earlier blob that was opened by an old listing.
func (l *life) isOld(o opened, p []byte, off int) bool {
	if len(o.data) == int(o.o.Size()) && bytes.Equal(p, o.data[off:off+len(p)]) {
		return false
	}
	for seq := 1; seq <= l.seq; seq++ {
		if old := noise(seq, int(o.o.Size())); bytes.Equal(old[off:off+len(p)], p) {
			return true
		}
	}
	return false
}

func (l *life) list() {
	if _, err := l.store().List(l.t.Context(), ""); err != nil {
		l.t.Fatal(err)
	}
}

func (l *life) restart() {
	i := l.rnd.IntN(len(l.caches))
	l.caches[i].Close() // those who have blobs open go on
	l.caches = append(l.caches[:i], l.caches[i+1:]...)
	l.stores = append(l.stores[:i], l.stores[i+1:]...)
	l.start(1 + l.rnd.Int64N(20<<20))
}

func (l *life) room() { l.caches[l.rnd.IntN(len(l.caches))].MakeRoom() }

func (l *life) flush() { l.caches[l.rnd.IntN(len(l.caches))].Flush() }

func (l *life) tick() { l.now.Add(uint32(l.rnd.IntN(3))) }

func (l *life) network() { l.r.broken.Store(l.rnd.IntN(3) == 0) }

func (l *life) pin() {
	if len(l.open) == 0 {
		return
	}
	if o, ok := l.open[l.rnd.IntN(len(l.open))].o.(*cache.Object); ok {
		if err := o.Pin(); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *life) damage() {
	paths, err := l.caches[0].Paths()
	if err != nil || len(paths) == 0 {
		return
	}
	path := paths[l.rnd.IntN(len(paths))]
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	st, _ := f.Stat()
	switch l.rnd.IntN(5) {
	case 0:
		err = os.Remove(path)
	case 1:
		err = f.Truncate(l.rnd.Int64N(st.Size() + 1))
	default:
		b := make([]byte, 1+l.rnd.IntN(20_000))
		for i := range b {
			b[i] = byte(l.rnd.Uint32())
		}
		_, err = f.WriteAt(b, l.rnd.Int64N(st.Size()+1))
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

const (
	childEnv  = "THAW_TEST_CACHE"
	childSize = 3 << 20
)

// readForEver is the process that TestKilled kills: it reads what a service with three blobs has.
func readForEver(dir string) int {
	r := newRemote()
	var data [3][]byte
	for i := range data {
		data[i] = noise(i, childSize)
		r.Replace(fmt.Sprint("b", i), data[i])
	}
	c, err := cache.Open(dir, cache.Options{Size: 6 << 20, MinFree: -1, Fetch: 64 << 10})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s := c.Wrap(r, "store")
	fmt.Println("reading")
	p := make([]byte, 100_000)
	for {
		k := rand.IntN(3)
		o, err := s.Open(context.Background(), fmt.Sprint("b", k))
		if err == nil {
			off := rand.IntN(childSize - len(p))
			_, err = o.ReadAt(p, int64(off))
			if err == nil && !bytes.Equal(p, data[k][off:off+len(p)]) {
				err = fmt.Errorf("wrong bytes at %d of %d", off, k)
			}
			o.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}

// startChild starts a process that reads, and returns when it does.
func startChild(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "reading\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd
}

// TestKilled: processes that use one directory are killed at any moment, and those that come after them, and
// those beside them, read right bytes; what is cached is still of use.
func TestKilled(t *testing.T) {
	rounds := 3
	if os.Getenv("THAW_TEST_LONG") != "" {
		rounds = 200
	}
	dir := t.TempDir()
	for range rounds {
		var all []*exec.Cmd
		for range 2 {
			all = append(all, startChild(t, dir))
		}
		pause := time.NewTimer(time.Duration(rand.IntN(100)) * time.Millisecond) // when they are killed
		<-pause.C
		for _, cmd := range all {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); cmd.ProcessState.Exited() {
				t.Fatalf("ended by itself: %v", err)
			}
		}
		r := newRemote()
		for i := range 3 {
			r.Replace(fmt.Sprint("b", i), noise(i, childSize))
		}
		c := open(t, dir, cache.Options{Size: 6 << 20})
		for i := range 3 {
			read(t, openBlob(t, c.Wrap(r, "store"), fmt.Sprint("b", i)), noise(i, childSize), 0, childSize)
		}
		c.MakeRoom()
		if s := c.Stats(); s.Errors != 0 || s.Full {
			t.Errorf("%+v", s)
		}
		c.Close()
	}
}
