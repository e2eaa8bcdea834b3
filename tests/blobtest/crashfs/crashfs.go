package crashfs

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
)

// ErrCrashed is the answer to whatever a process asks after its end.
var ErrCrashed = errors.New("the machine is off")

// FS is the file system. All methods may be called by many goroutines at once.
type FS struct {
	mu    sync.Mutex
	r     *rand.Rand // random choices; guarded by mu, as all below
	root  *node
	life  int // counts the processes: files that an earlier one has open fail
	steps int // that this process made
	last  int // the step at which it dies; 0: it does not
	then  func()
	dead  bool
}

var _ blob.FileSystem = (*FS)(nil)

// New makes an empty file system, whose random choices begin with a seed.
func New(seed uint64) *FS {
	return &FS{r: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), root: newDirectory()}
}

// Store opens the blob store that the file system holds.
func (f *FS) Store() (*blob.Dir, error) { return blob.OpenDirOn(f, "/") }

// CrashIn makes the process die at its n-th step from now on: 1 is the next. Steps change
// something; reading is none. At that moment then is called, if it is not nil, to note what else a
// crash would leave as it is; it must not use the file system.
func (f *FS) CrashIn(n int, then func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last, f.then = f.steps+n, then
}

// Steps is how many steps the process made.
func (f *FS) Steps() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.steps
}

// Crashed says whether the process has died.
func (f *FS) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// Kill ends the process, if it lives, and begins the next one: the kernel went on, so what was done
// is there, and still not durable.
func (f *FS) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begin()
}

// PowerCut ends process and machine, and begins the next: what was not durable is there or not.
func (f *FS) PowerCut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	// Some machines lose all, some little: a middle course would hardly ever try either.
	keep := [...]float64{0, 0.1, 0.5, 0.9, 1}
	f.root.cut(f.r, keep[f.r.IntN(len(keep))])
	f.begin()
}

func (f *FS) begin() {
	f.life++
	f.steps, f.last, f.then, f.dead = 0, 0, nil, false
}

// Fate of a step.
type fate int

const (
	done    fate = iota // it happens
	never               // the process is dead, or dies before it
	partly              // it dies during it
	unheard             // it happens, and the process dies before it hears of that
)

// step decides the result of the next step. mu must be held.
func (f *FS) step() fate {
	if f.dead {
		return never
	}
	f.steps++
	if f.steps != f.last {
		return done
	}
	f.dead = true
	if f.then != nil {
		f.then()
	}
	return fate(1 + f.r.IntN(3))
}

// answer is what the process hears of a step that came to err.
func (t fate) answer(op, name string, err error) error {
	if t != done {
		err = ErrCrashed
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

// Create implements blob.FileSystem.
func (f *FS) Create(name string) (blob.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.step()
	n := &node{}
	err := f.change(t, name, func(dir *node, base string) error {
		if dir.names[base] != nil {
			return unix.EEXIST
		}
		dir.do(change{in: base, node: n})
		return nil
	})
	if err := t.answer("create", name, err); err != nil {
		return nil, err
	}
	return &file{f: f, node: n, name: name, life: f.life}, nil
}

// change lets fn change the directory of name, if the step's fate is that it happens. What has no
// parts happens in part as often as not.
func (f *FS) change(t fate, name string, fn func(dir *node, base string) error) error {
	if t == never || t == partly && f.r.IntN(2) == 0 {
		return nil
	}
	dir, err := f.find(path.Dir(name))
	if err != nil {
		return err
	}
	if !dir.isDir() {
		return unix.ENOTDIR
	}
	return fn(dir, path.Base(name))
}

// find returns what name names. mu must be held.
func (f *FS) find(name string) (*node, error) {
	n := f.root
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if part == "" {
			continue
		}
		if !n.isDir() {
			return nil, unix.ENOTDIR
		}
		if n = n.names[part]; n == nil {
			return nil, unix.ENOENT
		}
	}
	return n, nil
}

// lookup is find for a process that may be dead.
func (f *FS) lookup(op, name string) (*node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(name)
	if f.dead {
		err = ErrCrashed
	}
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return n, nil
}

// Open implements blob.FileSystem.
func (f *FS) Open(name string) (blob.File, error) {
	n, err := f.lookup("open", name)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return &file{f: f, node: n, name: name, life: f.life}, nil
}

// MoveNew implements blob.FileSystem, within a directory.
func (f *FS) MoveNew(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if path.Dir(from) != path.Dir(to) {
		return fmt.Errorf("move %s to %s: between directories", from, to)
	}
	t := f.step()
	err := f.change(t, from, func(dir *node, base string) error {
		n := dir.names[base]
		if n == nil {
			return unix.ENOENT
		}
		if dir.names[path.Base(to)] != nil {
			return blob.ErrExists
		}
		dir.do(change{out: base, in: path.Base(to), node: n})
		return nil
	})
	return t.answer("move", to, err)
}

// Remove implements blob.FileSystem.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.step()
	err := f.change(t, name, func(dir *node, base string) error {
		n := dir.names[base]
		switch {
		case n == nil:
			return unix.ENOENT
		case n.isDir():
			return unix.EISDIR
		}
		dir.do(change{out: base, node: n})
		return nil
	})
	return t.answer("remove", name, err)
}

// Mkdir implements blob.FileSystem.
func (f *FS) Mkdir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.step()
	err := f.change(t, name, func(dir *node, base string) error {
		if dir.names[base] != nil {
			return unix.EEXIST
		}
		dir.do(change{in: base, node: newDirectory()})
		return nil
	})
	return t.answer("mkdir", name, err)
}

// SyncDir implements blob.FileSystem.
func (f *FS) SyncDir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.step()
	n, err := f.find(name)
	if err == nil && !n.isDir() {
		err = unix.ENOTDIR
	}
	// One that was done in part is one that was not done: any of the steps may be durable anyway.
	if err == nil && (t == done || t == unheard) {
		n.sync()
	}
	return t.answer("sync", name, err)
}

// Stat implements blob.FileSystem.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	n, err := f.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return n.info(path.Base(name)), nil
}

// Lstat implements blob.FileSystem. There are no links.
func (f *FS) Lstat(name string) (fs.FileInfo, error) { return f.Stat(name) }

// WalkDir implements blob.FileSystem, without SkipDir and SkipAll.
func (f *FS) WalkDir(root string, fn fs.WalkDirFunc) error {
	info, err := f.Lstat(root)
	if err != nil {
		return fn(root, nil, err)
	}
	if err := fn(root, fs.FileInfoToDirEntry(info), nil); err != nil || !info.IsDir() {
		return err
	}
	for _, name := range f.list(root) {
		if err := f.WalkDir(path.Join(root, name), fn); err != nil {
			return err
		}
	}
	return nil
}

// list returns the names in a directory, sorted.
func (f *FS) list(name string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(name)
	if err != nil {
		return nil
	}
	return n.list()
}
