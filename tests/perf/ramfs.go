package perf

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// ramEnv makes a process of the test binary the bare server: "IMAGE:MOUNTPOINT".
const ramEnv = "THAW_PERF_RAM"

// ramMainIfChild serves until its standard input ends, in a process that was started for it.
func ramMainIfChild() {
	spec, ok := os.LookupEnv(ramEnv)
	if !ok {
		return
	}
	imagePath, mnt, _ := strings.Cut(spec, ":")
	if err := serveRAM(imagePath, mnt); err != nil {
		fmt.Fprintln(os.Stderr, "ram server:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveRAM(imagePath, mnt string) error {
	data, err := os.ReadFile(imagePath)
	if err != nil {
		return err
	}
	server, err := fuse.NewServer(&ramFS{fuse.NewDefaultRawFileSystem(), data}, mnt,
		&fuse.MountOptions{
			FsName: "ram", Name: "perf", DirectMount: true, MaxReadAhead: 4096,
			DisableXAttrs: true, ExplicitDataCacheControl: true,
		})
	if err != nil {
		return err
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return server.Unmount()
}

// ramFS is the floor: a root with one file, `memory`, whose bytes lie in a slice. `memory-1` and so on are
// the same bytes once more, with an inode and a page cache of their own.
type ramFS struct {
	fuse.RawFileSystem
	data []byte
}

const (
	ramName = "memory"
	ramNode = 2 // that of ramName; those of the others follow
)

func (f *ramFS) attr(node uint64, out *fuse.Attr) fuse.Status {
	out.Ino, out.Nlink = node, 1
	if node == fuse.FUSE_ROOT_ID {
		out.Mode = fuse.S_IFDIR | 0o755
	} else {
		out.Mode, out.Size = fuse.S_IFREG|0o444, uint64(len(f.data))
	}
	return fuse.OK
}

func (f *ramFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(1 << 40)
	return f.attr(in.NodeId, &out.Attr)
}

func (f *ramFS) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	out.NodeId = ramNode
	if number, more := strings.CutPrefix(name, ramName+"-"); more {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return fuse.ENOENT
		}
		out.NodeId += n
	} else if name != ramName {
		return fuse.ENOENT
	}
	out.SetEntryTimeout(1 << 40)
	out.SetAttrTimeout(1 << 40)
	return f.attr(out.NodeId, &out.Attr)
}

func (f *ramFS) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

func (f *ramFS) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	size := uint64(len(f.data))
	from := min(in.Offset, size)
	return fuse.ReadResultData(f.data[from:min(from+uint64(in.Size), size)]), fuse.OK
}

func (f *ramFS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, _ *fuse.StatfsOut) fuse.Status {
	return fuse.OK
}
