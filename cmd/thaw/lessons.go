package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/blob"
)

// lessonsDir is the directory of a store in which its server keeps what restores have taught it, one small
// file for each checkpoint, named by its ID. Packs, roots and index are not touched by a server. Whoever
// loses these files loses nothing but what the next two restores teach again.
const lessonsDir = "playout"

// lessons keeps fs.Lessons in a store.
type lessons struct{ store string }

var _ fs.Lessons = lessons{}

// path is where the lesson of a checkpoint is kept. IDs are hex, and nothing else becomes a path.
func (l lessons) path(id string) (string, error) {
	if id == "" || len(id) > 128 || strings.Trim(id, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%.40q is not the ID of a checkpoint", id)
	}
	return filepath.Join(l.store, lessonsDir, id), nil
}

// Load implements fs.Lessons.
func (l lessons) Load(id string) (fs.Lesson, error) {
	path, err := l.path(id)
	if err != nil {
		return fs.Lesson{}, err
	}
	st, err := os.Lstat(path)
	if errors.Is(err, iofs.ErrNotExist) {
		return fs.Lesson{}, nil
	}
	if err == nil && !st.Mode().IsRegular() { // a pipe would never end
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return fs.Lesson{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return fs.Lesson{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, fs.MaxLessonText+1))
	if err != nil {
		return fs.Lesson{}, err
	}
	return fs.ParseLesson(text)
}

// Save implements fs.Lessons. A lesson is there whole or as it was before.
func (l lessons) Save(id string, lesson fs.Lesson) (err error) {
	path, err := l.path(id)
	if err != nil {
		return err
	}
	text, err := lesson.Text()
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o700); err == nil {
		err = blob.GiveTo(l.store, dir)
		if err != nil {
			return err
		}
	} else if !errors.Is(err, iofs.ErrExist) {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = blob.GiveTo(l.store, f.Name())
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// sweepLessons removes the lessons of checkpoints that the store does not have.
func sweepLessons(ctx context.Context, dir string, s *index.Store) error {
	entries, err := os.ReadDir(filepath.Join(dir, lessonsDir))
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
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
		if known[e.Name()] {
			continue
		}
		err := os.Remove(filepath.Join(dir, lessonsDir, e.Name()))
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
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
