package rawfs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index/blob/disk"
)

// Server serves one checkpoint directory on a mount.
type Server struct {
	mnt  string
	fs   *fs.Server
	gone chan struct{} // closed when the mount has ended for any reason
}

// Mount serves the checkpoint directory (or bare memory file) at path on mnt, under a name. Of the
// options only the policy, the log and the collectors are heeded. d may be nil.
func Mount(ctx context.Context, path, mnt, name string, d *disk.Disk, o fs.Options) (*Server, error) {
	if o.Policy == fs.PolicyWorkingSet || o.Policy == fs.PolicyWorkingSetFull {
		return nil, errors.New("a plain file has no working set to restore")
	}
	store, err := Open(path, name, d)
	if err != nil {
		return nil, err
	}
	s := &Server{gone: make(chan struct{})}
	if s.mnt, err = filepath.Abs(mnt); err != nil {
		return nil, err
	}
	s.fs, err = fs.Mount(ctx, store, s.mnt,
		fs.Options{Policy: o.Policy, ReadAhead: ReadAhead, Log: o.Log, Collectors: o.Collectors})
	if err != nil {
		return nil, err
	}
	go func() {
		s.fs.Wait()
		close(s.gone)
	}()
	return s, nil
}

// Run serves until the mount is taken away or ctx ends. What still uses the mount when ctx ends is
// cut off: the lab has ended its machine before, or does not want what it finds.
func (s *Server) Run(ctx context.Context) error {
	select {
	case <-s.gone:
		return nil
	case <-ctx.Done():
	}
	err := s.fs.Unmount(context.WithoutCancel(ctx))
	if errors.Is(err, fs.ErrBusy) {
		err = fs.Abort(s.mnt)
	}
	if err != nil {
		return fmt.Errorf("end the mount %s: %w", s.mnt, err)
	}
	<-s.gone
	return nil
}
