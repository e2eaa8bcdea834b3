package doctor

import (
	"errors"
	"io"
	"log"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// mounted is an empty FUSE file system in a directory of its own.
type mounted struct {
	*fuse.Server
	dir string
}

// tryMount mounts an empty file system as thaw mount would: by mount(2), or by fusermount3.
func tryMount() (*mounted, error) {
	dir, err := os.MkdirTemp("", "thaw-doctor-")
	if err != nil {
		return nil, err
	}
	srv, err := fuse.NewServer(fuse.NewDefaultRawFileSystem(), dir, &fuse.MountOptions{
		FsName: "thaw-doctor", Name: "thaw-doctor", DirectMount: true,
		Logger: log.New(io.Discard, "", 0),
	})
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	m := &mounted{srv, dir}
	go srv.Serve()
	if err := srv.WaitMount(); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *mounted) close() error {
	if err := m.Unmount(); err != nil {
		return err
	}
	m.Wait()
	return os.Remove(m.dir)
}
