package blob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the name of every file that is not a blob yet. CheckName refuses it.
const tempPrefix = ".tmp-"

// Dir is a Store in a directory: the blob a/b is the file a/b in it.
type Dir struct {
	files    FileSystem
	root     string
	readOnly bool
	owner    owner
	seq      atomic.Uint64 // makes temporary names unique within the process
	// open bounds what is open of the host's files; nil on another file system.
	open *descriptors
}

// OpenDir returns the store in the existing directory root. It removes what an earlier process left
// uncommitted, and makes durable what that process did not: a power cut must not undo what the
// caller sees from now on. So no other process may write there. If the process is root, and the
// directory belongs to another user, then its files get that owner.
func OpenDir(root string) (*Dir, error) {
	d, err := openDir(hostFiles{}, root)
	if err != nil {
		return nil, err
	}
	if d.owner, err = ownerOf(root); err != nil {
		return nil, fmt.Errorf("open blob directory: %w", err)
	}
	return d, d.sweep()
}

// OpenDirOn is OpenDir on another file system than the host's.
func OpenDirOn(files FileSystem, root string) (*Dir, error) {
	d, err := openDir(files, root)
	if err != nil {
		return nil, err
	}
	return d, d.sweep()
}

// OpenDirReadOnly opens the store in the existing directory root for reading, also while another
// process writes there. It writes nothing, and works on a read-only file system. A blob that is open
// stays readable when it is removed.
func OpenDirReadOnly(root string) (*Dir, error) {
	d, err := openDir(hostFiles{}, root)
	if err != nil {
		return nil, err
	}
	d.readOnly = true
	return d, nil
}

func openDir(files FileSystem, root string) (*Dir, error) {
	st, err := files.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("open blob directory: %w", err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("open blob directory %s: %w", root, unix.ENOTDIR)
	}
	d := &Dir{files: files, root: root}
	if files == (hostFiles{}) {
		d.open = newDescriptors()
	}
	return d, nil
}

var (
	_ Store   = (*Dir)(nil)
	_ Dropper = (*Dir)(nil)
)

// sweep removes the temporary files of writers that never committed, and syncs directories.
func (d *Dir) sweep() error {
	err := d.files.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = d.files.SyncDir(path)
		}
		if errors.Is(err, fs.ErrPermission) && path != d.root {
			return nil // a user who may not read a directory has not written there
		}
		if err != nil {
			return err
		}
		if e.Type().IsRegular() && strings.HasPrefix(e.Name(), tempPrefix) {
			return d.files.Remove(path)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sweep blob directory: %w", err)
	}
	return nil
}

func (d *Dir) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

// Create implements Store.
func (d *Dir) Create(ctx context.Context, name string) (Writer, error) {
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	if d.readOnly {
		return nil, fmt.Errorf("create %s: %w", name, ErrReadOnly)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path := d.path(name)
	if _, err := d.files.Lstat(path); err == nil {
		return nil, fmt.Errorf("create %s: %w", name, ErrExists)
	}
	if err := d.makeParents(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	temp := fmt.Sprintf("%s%d-%d", tempPrefix, os.Getpid(), d.seq.Add(1))
	temp = filepath.Join(filepath.Dir(path), temp)
	f, err := d.files.Create(temp)
	if err == nil {
		if err = d.owner.give(temp); err != nil {
			err = errors.Join(err, f.Close(), d.files.Remove(temp))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	return &dirWriter{files: d.files, f: f, name: name, temp: temp, path: path}, nil
}

// makeParents is MkdirAll that also makes each new directory durable in its parent.
func (d *Dir) makeParents(dir string) error {
	if _, err := d.files.Stat(dir); err == nil || dir == d.root {
		return err
	}
	if err := d.makeParents(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := d.files.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.owner.give(dir); err != nil {
		return err
	}
	return d.files.SyncDir(filepath.Dir(dir))
}

// Open implements Store.
func (d *Dir) Open(ctx context.Context, name string) (Object, error) {
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o, err := d.openPath(d.path(name))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, notFound(err))
	}
	return o, nil
}

func (d *Dir) openPath(path string) (Object, error) {
	if d.open != nil {
		return d.open.open(path)
	}
	f, err := d.files.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%w: not a regular file", ErrNotFound)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &dirObject{f: f, size: st.Size()}, nil
}

// List implements Store.
func (d *Dir) List(ctx context.Context, prefix string) ([]Info, error) {
	// Only the directory that the prefix names needs to be walked.
	start := d.root
	if i := strings.LastIndexByte(prefix, '/'); i > 0 && CheckName(prefix[:i]) == nil {
		start = d.path(prefix[:i])
	}
	var out []Info
	err := d.files.WalkDir(start, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			// A blob or directory that is removed during the walk counts as not there. Directories
			// that were not asked for may be unreadable.
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && path != start {
				return nil
			}
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(d.root, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if !strings.HasPrefix(name, prefix) || CheckName(name) != nil {
			return nil
		}
		odd := !e.Type().IsRegular()
		if odd && (start == d.root || filepath.Dir(path) != start) {
			return nil
		}
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		out = append(out, Info{Name: name, Size: st.Size(), Tag: tagOf(st), Odd: odd})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", prefix, err)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// Remove implements Store.
func (d *Dir) Remove(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if d.readOnly {
		return fmt.Errorf("remove %s: %w", name, ErrReadOnly)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	path := d.path(name)
	if st, err := d.files.Lstat(path); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("remove %s: %w: not a regular file", name, ErrNotFound)
	}
	err := d.files.Remove(path)
	if err == nil {
		err = d.files.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, notFound(err))
	}
	return nil
}

// Drop implements Dropper. The blob is clean (Commit wrote it back), so every page of it that
// nobody maps goes.
func (d *Dir) Drop(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := d.files.Open(d.path(name))
	if err != nil {
		return fmt.Errorf("drop %s: %w", name, notFound(err))
	}
	defer f.Close()
	if err := evict(f); err != nil {
		return fmt.Errorf("drop %s: %w", name, err)
	}
	return nil
}

// tagOf makes a tag of a file's inode and times. An inode number may be used again, but not with
// the same times.
func tagOf(st fs.FileInfo) string {
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%x.%x.%x.%x", s.Dev, s.Ino, s.Ctim.Nano(), s.Mtim.Nano())
}

// notFound wraps the file system's error in ErrNotFound, keeping both for errors.Is.
func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%w (%w)", ErrNotFound, err)
	}
	return err
}

// evict removes a file from the host's page cache, which other file systems do not use.
func evict(f File) error {
	host, ok := f.(*os.File)
	if !ok {
		return nil
	}
	conn, err := host.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) { err = unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED) })
	if cerr != nil {
		return cerr
	}
	return os.NewSyscallError("fadvise", err)
}
