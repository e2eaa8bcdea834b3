package blob

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dirWriter writes a temporary file beside the blob's place.
type dirWriter struct {
	files      FileSystem
	f          File // nil once it is committed or given up
	name       string
	temp, path string
	written    int64
	begun      int64 // how much of it is on its way to the disk
}

// writeBackStep is how much is written before the disk is told to begin with it. So Commit waits for
// little, and the disk works while the next bytes are made.
const writeBackStep = 8 << 20

func (w *dirWriter) Write(p []byte) (int, error) {
	if w.f == nil {
		return 0, fmt.Errorf("write %s: %w", w.name, ErrClosed)
	}
	n, err := w.f.Write(p)
	if err != nil {
		return n, fmt.Errorf("write %s: %w", w.name, err)
	}
	if w.written += int64(n); w.written-w.begun >= writeBackStep {
		writeBack(w.f, w.begun, w.written-w.begun)
		w.begun = w.written
	}
	return n, nil
}

// writeBack begins to write a part of a file to the disk. It is only a hint; what fails, Sync says.
func writeBack(f File, off, n int64) {
	host, ok := f.(*os.File)
	if !ok {
		return
	}
	if conn, err := host.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) {
			_ = unix.SyncFileRange(int(fd), off, n, unix.SYNC_FILE_RANGE_WRITE)
		})
	}
}

// Commit makes the bytes durable before the name, and the name before it returns.
func (w *dirWriter) Commit() error {
	if w.f == nil {
		return fmt.Errorf("commit %s: %w", w.name, ErrClosed)
	}
	err := w.f.Sync()
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	w.f = nil
	if err == nil {
		err = w.files.MoveNew(w.temp, w.path)
	}
	if err != nil {
		// The next OpenDir removes the temporary file, if it is left.
		_ = w.files.Remove(w.temp)
		return fmt.Errorf("commit %s: %w", w.name, err)
	}
	if err := w.files.SyncDir(filepath.Dir(w.path)); err != nil {
		// The name may or may not survive a crash; an error must mean that there is no such blob.
		_ = w.files.Remove(w.path)
		return fmt.Errorf("commit %s: %w", w.name, err)
	}
	return nil
}

func (w *dirWriter) Abort() error {
	if w.f == nil {
		return nil
	}
	err := w.f.Close()
	w.f = nil
	if rerr := w.files.Remove(w.temp); err == nil {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("abort %s: %w", w.name, err)
	}
	return nil
}

// dirObject is a committed file of another file system than the host's. Its size is taken once: the file
// never changes.
type dirObject struct {
	f    File
	size int64
}

func (o *dirObject) ReadAt(p []byte, off int64) (int, error) { return readAt(o.f, p, off) }

// readAt is ReadAt of a file, with no error at its end if all that was asked for lies before it.
func readAt(f io.ReaderAt, p []byte, off int64) (int, error) {
	n, err := f.ReadAt(p, off)
	if err == io.EOF && n == len(p) {
		err = nil
	}
	return n, err
}

func (o *dirObject) Size() int64  { return o.size }
func (o *dirObject) Close() error { return o.f.Close() }
