package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/seal"
)

// lessonsDir is the directory of a store in which its server keeps what restores have taught it, one small
// file for each checkpoint, named by its ID. Packs, roots and index are not touched by a server. If
// these files are lost, nothing is lost but what the next two restores teach again.
const lessonsDir = "playout"

// lessons keeps fs.Lessons in a store. In a sealed one they are sealed.
type lessons struct {
	store string
	vault *seal.Vault // nil: the store is not sealed
}

// lessons are those of a store.
func (a *app) lessons(ctx context.Context, store string) (lessons, error) {
	v, err := index.OpenVault(ctx, store, a.stores.Keys)
	if err == nil && v == nil && a.stores.MustSeal {
		err = fmt.Errorf("store %s: %w", store, index.ErrNotSealed)
	}
	return lessons{store, v}, err
}

var _ fs.Lessons = lessons{}

// name is the file of a checkpoint's lesson. IDs are hex, and nothing else becomes a name.
func (l lessons) name(id string) (string, error) {
	if !isLesson(id) {
		return "", fmt.Errorf("%.40q is not the ID of a checkpoint", id)
	}
	return id, nil
}

func isLesson(name string) bool {
	return name != "" && len(name) <= 128 && strings.Trim(name, "0123456789abcdef") == ""
}

// newLesson begins the name of a lesson that is being written.
const newLesson = ".new-"

// openLessons opens the directory of the lessons. A server may run as another user than the owner of the
// store, who must not lead it elsewhere: no link is followed out of the store, and the directory is no link.
func openLessons(store string) (*os.Root, error) {
	root, err := os.OpenRoot(store)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	st, err := root.Lstat(lessonsDir)
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s is not a directory; remove it", filepath.Join(store, lessonsDir))
	}
	if err != nil {
		return nil, err
	}
	return root.OpenRoot(lessonsDir)
}

// Load implements fs.Lessons.
func (l lessons) Load(id string) (fs.Lesson, error) {
	name, err := l.name(id)
	if err != nil {
		return fs.Lesson{}, err
	}
	text, err := l.read(name, fs.MaxLessonText)
	if errors.Is(err, iofs.ErrNotExist) {
		return fs.Lesson{}, nil
	}
	if err != nil {
		return fs.Lesson{}, err
	}
	return fs.ParseLesson(text)
}

// read reads a file beside the lessons, and a byte more than it should have at most.
func (l lessons) read(name string, most int64) ([]byte, error) {
	dir, err := openLessons(l.store)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// The open of a pipe must not wait for a writer.
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("the lesson %s is not a regular file; remove it", name)
	}
	if err != nil {
		return nil, err
	}
	if l.vault == nil {
		return io.ReadAll(io.LimitReader(f, most+1))
	}
	sealed, err := io.ReadAll(io.LimitReader(f, seal.StoredSize(most+1)))
	if err != nil {
		return nil, err
	}
	return l.vault.OpenFile(name, sealed)
}

// Save implements fs.Lessons. A lesson is there whole or as it was before.
func (l lessons) Save(id string, lesson fs.Lesson) error {
	name, err := l.name(id)
	if err != nil {
		return err
	}
	text, err := lesson.Text()
	if err != nil {
		return err
	}
	return l.write(name, text)
}

// write writes a file beside the lessons, whole or not at all.
func (l lessons) write(name string, text []byte) (err error) {
	dir, err := l.makeDir()
	if err != nil {
		return err
	}
	defer dir.Close()
	if l.vault != nil {
		text = l.vault.SealFile(name, text)
	}
	next := newLesson + rand.Text()
	f, err := dir.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, giveTo(l.store, f.Chown), f.Close())
	if err == nil {
		err = dir.Rename(next, name)
	}
	if err != nil {
		return errors.Join(err, dir.Remove(next))
	}
	return nil
}

// makeDir is openLessons, and makes the directory if there is none.
func (l lessons) makeDir() (*os.Root, error) {
	dir, err := openLessons(l.store)
	if !errors.Is(err, iofs.ErrNotExist) {
		return dir, err
	}
	root, err := os.OpenRoot(l.store)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	err = root.Mkdir(lessonsDir, 0o700)
	if err == nil {
		err = giveTo(l.store, func(uid, gid int) error { return root.Lchown(lessonsDir, uid, gid) })
	}
	if err != nil && !errors.Is(err, iofs.ErrExist) {
		return nil, err
	}
	return openLessons(l.store)
}

// giveTo gives what root has made to the owner of the store.
func giveTo(store string, chown func(uid, gid int) error) error {
	st, err := os.Stat(store)
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	return chown(int(owner.Uid), int(owner.Gid))
}

// sweepLessons removes the lessons of checkpoints that the store does not have, and nothing else.
func sweepLessons(ctx context.Context, store string, s *index.Store) error {
	dir, err := openLessons(store)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := iofs.ReadDir(dir.FS(), ".")
	if err != nil {
		return err
	}
	all, err := s.List(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, c := range all {
		known[c.ID] = true
	}
	var errs []error
	for _, e := range entries {
		name := e.Name()
		of := strings.TrimSuffix(strings.TrimSuffix(name, askedSuffix), learnedSuffix)
		if known[of] || !isLesson(of) && !strings.HasPrefix(name, newLesson) {
			continue
		}
		if err := dir.Remove(name); err != nil && !errors.Is(err, iofs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// forgetLessons is sweepLessons after a command has removed checkpoints. What stays costs nothing but a
// few bytes, so it fails no command.
func (a *app) forgetLessons(ctx context.Context, dir string, s *index.Store) {
	if err := sweepLessons(ctx, dir, s); err != nil {
		a.log.Debug("what restores of removed checkpoints taught is still there", "err", err)
	}
}
