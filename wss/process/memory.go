package process

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Errors of Open. A process that has ended is os.ErrNotExist.
var (
	ErrNoRAM     = errors.New("no shared mapping of a file is large enough to be a machine's RAM")
	ErrAmbiguous = errors.New("several shared files are large enough to be a machine's RAM")
	ErrLayout    = errors.New("where the guest has its RAM is not known")
)

// smallest is the least RAM of a machine, in bytes. Shared mappings below it are something else.
const smallest = 16 << 20

// A candidate is a file that may be the RAM of a machine.
type candidate struct {
	device string
	inode  uint64
	path   string
	maps   []mapping // ascending by offset
	bytes  uint64
}

// candidates are the files that are mapped shared and writable, the largest first. private is how much
// memory is mapped private, in bytes.
func candidates(all []mapping) (list []candidate, private uint64) {
	type key struct {
		device string
		inode  uint64
	}
	files := map[key]*candidate{}
	for _, m := range all {
		if !m.shared || !m.writable || m.inode == 0 {
			if m.writable && !m.shared {
				private += m.bytes()
			}
			continue
		}
		k := key{m.device, m.inode}
		if files[k] == nil {
			files[k] = &candidate{device: m.device, inode: m.inode, path: m.path}
		}
		files[k].maps = append(files[k].maps, m)
	}
	for _, c := range files {
		slices.SortFunc(c.maps, func(a, b mapping) int { return cmp.Compare(a.offset, b.offset) })
		c.bytes = c.covered()
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.path, b.path))
	})
	return list, private
}

// covered is how many bytes of the file are mapped, each counted once.
func (c candidate) covered() (n uint64) {
	end := uint64(0)
	for _, m := range c.maps {
		from, to := max(m.offset, end), m.offset+m.bytes()
		if from < to {
			n, end = n+to-from, to
		}
	}
	return n
}

// choose picks the RAM among the candidates. want is nil, or says which one the caller wants.
func choose(list []candidate, private uint64, want func(candidate) bool) (candidate, error) {
	var fit []candidate
	for _, c := range list {
		if want == nil && c.bytes >= smallest || want != nil && want(c) {
			fit = append(fit, c)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		var names []string
		for _, c := range fit {
			names = append(names, fmt.Sprintf("%s (%d MiB)", c.path, c.bytes>>20))
		}
		return candidate{}, fmt.Errorf("%w: %s", ErrAmbiguous, strings.Join(names, ", "))
	case want != nil:
		return candidate{}, fmt.Errorf("%w: it does not map that file shared and writable", ErrNoRAM)
	}
	return candidate{}, fmt.Errorf("%w (%d MiB of memory are mapped private)", ErrNoRAM, private>>20)
}

// proc is a process, by its directory in /proc, which stays that of the process when its number is used
// again.
type proc struct {
	pid int
	dir *os.File
}

func openProc(pid int) (*proc, error) {
	dir, err := os.Open(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return &proc{pid, dir}, nil
}

func (p *proc) path(name ...string) string {
	return filepath.Join(append([]string{fmt.Sprintf("/proc/self/fd/%d", p.dir.Fd())}, name...)...)
}

func (p *proc) mappings() ([]mapping, error) {
	f, err := os.Open(p.path("maps"))
	if err != nil {
		return nil, fmt.Errorf("mappings of process %d: %w", p.pid, err)
	}
	defer f.Close()
	return parseMaps(f)
}

// open opens the file of a candidate for reading and writing: by its mapping, which needs rights of
// root, or by a descriptor that the process has of it.
func (p *proc) open(c candidate) (*os.File, error) {
	m := c.maps[0]
	f, err := os.OpenFile(p.path("map_files", fmt.Sprintf("%x-%x", m.start, m.end)), os.O_RDWR, 0)
	if err == nil {
		return named(f, c.path), nil
	}
	fds, ferr := os.ReadDir(p.path("fd"))
	if ferr != nil {
		return nil, fmt.Errorf("files of process %d: %w", p.pid, ferr)
	}
	for _, fd := range fds {
		name := p.path("fd", fd.Name())
		if st, serr := os.Stat(name); serr != nil || !c.is(st) {
			continue
		}
		if f, err = os.OpenFile(name, os.O_RDWR, 0); err == nil {
			return named(f, c.path), nil
		}
	}
	return nil, fmt.Errorf("open %s of process %d: %w", c.path, p.pid, err)
}

// named gives an open file the name by which its process knows it.
func named(f *os.File, name string) *os.File {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return f
	}
	f.Close()
	return os.NewFile(uintptr(fd), name)
}

// is says whether a file is the candidate's.
func (c candidate) is(st os.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Ino == c.inode &&
		fmt.Sprintf("%02x:%02x", unix.Major(sys.Dev), unix.Minor(sys.Dev)) == c.device
}

// kvm says whether the process runs a machine of KVM.
func (p *proc) kvm() bool {
	fds, err := os.ReadDir(p.path("fd"))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(fds, func(fd os.DirEntry) bool {
		to, _ := os.Readlink(p.path("fd", fd.Name()))
		return strings.HasSuffix(to, "kvm-vm")
	})
}
