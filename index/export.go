package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Export writes a checkpoint back as a plain checkpoint directory, which must not exist: sparse,
// complete or not there at all.
func (s *Store) Export(ctx context.Context, name, dir string, progress func(Progress)) error {
	if err := s.export(ctx, name, dir, progress); err != nil {
		return fmt.Errorf("export %s to %s: %w", name, dir, err)
	}
	return nil
}

func (s *Store) export(ctx context.Context, name, dir string, progress func(Progress)) (err error) {
	m, err := s.OpenImage(ctx, name)
	if err != nil {
		return err
	}
	defer m.Close()
	if _, err := os.Lstat(dir); err == nil {
		return ErrExists
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir = filepath.Clean(dir)
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".thaw-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := m.exportMemory(ctx, filepath.Join(tmp, fileMemory), progress); err != nil {
		return err
	}
	for _, file := range sortedKeys(m.root.FileParts) {
		if err := m.exportFile(ctx, file, filepath.Join(tmp, file)); err != nil {
			return err
		}
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	// A directory can be renamed over an empty one; this one must be new.
	err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = os.Rename(tmp, dir)
	}
	if errors.Is(err, fs.ErrExist) {
		return ErrExists
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// exportMemory writes the image. What is zero stays a hole.
func (m *Image) exportMemory(ctx context.Context, path string, progress func(Progress)) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(m.Size()); err != nil {
		return err
	}
	feed := m.EagerFeed()
	g := newGroup(ctx)
	n := runtime.GOMAXPROCS(0)
	pieces := newOrdered(g, n, 4*n, func() func(*exportJob) error {
		var p Piece
		return func(j *exportJob) error {
			if err := ReadPiece(g.ctx, feed, j.i, &p); err != nil {
				return err
			}
			j.pages.Store(int64(len(p.GFNs)))
			return writePages(f, &p)
		}
	})
	g.run(func() error {
		defer pieces.end()
		for i := range feed.Len() {
			if err := pieces.submit(&exportJob{i: i}); err != nil {
				return err
			}
		}
		return nil
	})
	meter := newMeter(progress, "export", "bytes", int64(m.pages.data)*PageSize)
	for {
		j, ok, rerr := pieces.receive()
		if rerr != nil || !ok {
			err = rerr
			break
		}
		meter.add(j.pages.Load() * PageSize)
	}
	g.cancel(err)
	_ = g.wait() // the error, if any, is the one received
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

type exportJob struct {
	i     int
	pages atomic.Int64
}

// writePages writes pages to their places, neighbours at once.
func writePages(f *os.File, p *Piece) error {
	for i := 0; i < len(p.GFNs); {
		j := i + 1
		for j < len(p.GFNs) && p.GFNs[j] == p.GFNs[j-1]+1 {
			j++
		}
		if _, err := f.WriteAt(p.Pages[i*PageSize:j*PageSize], int64(p.GFNs[i])*PageSize); err != nil {
			return err
		}
		i = j
	}
	return nil
}

// exportFile writes a file beside the memory.
func (m *Image) exportFile(ctx context.Context, file, path string) error {
	parts := m.root.FileParts[file]
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	n := newPinnedNodes(m.root.top.packs, m.pins)
	for i := range parts.Parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := m.root.part(n, parts, i)
		if err != nil {
			return fmt.Errorf("file %s: %w", file, err)
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return out.Close()
}
