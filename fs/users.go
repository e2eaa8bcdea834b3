package fs

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A UserKind is how something uses a mount.
type UserKind string

// The ways to use a mount.
const (
	UserBind      UserKind = "bind mount"
	UserNamespace UserKind = "mount namespace"
	UserOverlay   UserKind = "overlay"
	UserCwd       UserKind = "working directory"
	UserRoot      UserKind = "root directory"
	UserFile      UserKind = "open file"
	UserMapping   UserKind = "mapping"
)

// A User is what keeps a mount's file system in use.
type User struct {
	// PID and Command are the process; 0 and empty for mounts in this namespace.
	PID     int      `json:"pid,omitempty"`
	Command string   `json:"command,omitempty"`
	Kind    UserKind `json:"kind"`
	// Path is where the other mount is, or the file.
	Path string `json:"path"`
	// Namespace is the mount namespace, as "mnt:[4026531841]", where it is not this one.
	Namespace string `json:"namespace,omitempty"`
}

func (u User) String() string {
	var who string
	if u.PID != 0 {
		who = fmt.Sprintf(" of %s (%d)", u.Command, u.PID)
	}
	return fmt.Sprintf("%s%s: %s", u.Kind, who, u.Path)
}

// usersOf lists what uses a mount besides the mount itself: other mounts of it, here and in other
// namespaces, and processes. It reads /proc, and nothing of the mount, which may be gone from this
// namespace. What this process may not look at is not listed.
func usersOf(m MountPoint) ([]User, error) {
	here, err := readMounts(selfMounts)
	if err != nil {
		return nil, err
	}
	s := &userSearch{mount: m, tables: map[string]*namespace{}}
	s.tables[readLink("/proc/self/ns/mnt")] = &namespace{table: here}
	s.mounts(here, User{})
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, dir := range pids {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && pid != os.Getpid() {
			s.process(pid, dir)
		}
	}
	s.mappings()
	slices.SortFunc(s.users, func(a, b User) int {
		return cmp.Or(a.PID-b.PID, cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Path, b.Path))
	})
	return slices.Compact(s.users), nil
}

// A userSearch goes through the processes of this host.
type userSearch struct {
	mount  MountPoint
	tables map[string]*namespace // by the name of the mount namespace
	// mapped are the processes whose mappings are to be looked at.
	mapped []User
	users  []User
}

// A namespace is a mount namespace that a process is in.
type namespace struct {
	name  string // empty: our own
	table mountTable
}

func (s *userSearch) add(u User) { s.users = append(s.users, u) }

// mounts notes the mounts of the file system in a namespace, and overlays over it; in is a process of
// the namespace.
func (s *userSearch) mounts(table mountTable, in User) {
	for _, m := range table {
		u := in
		u.Path = m.mountPoint
		switch {
		case m.fsType == fsType && m.minor == s.mount.Minor:
			if u.Kind = UserNamespace; in.PID == 0 {
				if m.mountPoint == s.mount.Path {
					continue
				}
				u.Kind = UserBind
			}
			s.add(u)
		case m.fsType == "overlay" && s.layers(m.options):
			u.Kind = UserOverlay
			s.add(u)
		}
	}
}

// layers says whether one of the directories of an overlay lies in the mount.
func (s *userSearch) layers(options string) bool {
	for _, o := range strings.Split(options, ",") {
		name, value, _ := strings.Cut(o, "=")
		if name != "lowerdir" && name != "lowerdir+" && name != "upperdir" {
			continue
		}
		for _, dir := range strings.Split(value, ":") {
			if under(dir, s.mount.Path) {
				return true
			}
		}
	}
	return false
}

// process notes how a process uses the mount. It skips processes that end meanwhile, and
// those that it may not look at.
func (s *userSearch) process(pid int, dir string) {
	comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
	u := User{PID: pid, Command: strings.TrimSpace(string(comm))}
	name := readLink(filepath.Join(dir, "ns/mnt"))
	ns := s.tables[name]
	if ns == nil {
		table, err := readMounts(filepath.Join(dir, "mountinfo"))
		if name == "" || err != nil {
			return
		}
		ns = &namespace{name: name, table: table}
		s.tables[name] = ns
		u.Namespace = name
		s.mounts(table, u)
	}
	u.Namespace = ns.name
	s.directories(u, dir, ns.table.of(s.mount.Minor))
	s.files(u, dir, ns.table.of(s.mount.Minor))
	s.mapped = append(s.mapped, u)
}

// directories notes the working and root directory of a process. A link has only the path, which must
// be inside of the mount by its name.
func (s *userSearch) directories(u User, dir string, mounts mountTable) {
	for name, kind := range map[string]UserKind{"cwd": UserCwd, "root": UserRoot} {
		at := readLink(filepath.Join(dir, name))
		for _, m := range mounts {
			if at != "" && under(at, m.mountPoint) {
				u.Kind, u.Path = kind, at
				s.add(u)
				break
			}
		}
	}
}

// files notes open files. Their mounts have numbers, in fdinfo.
func (s *userSearch) files(u User, dir string, mounts mountTable) {
	names, _ := filepath.Glob(filepath.Join(dir, "fdinfo/*"))
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), "mnt_id:")
		id, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
		for _, m := range mounts {
			if id == strconv.Itoa(m.id) {
				u.Kind = UserFile
				u.Path = readLink(filepath.Join(dir, "fd", filepath.Base(name)))
				s.add(u)
				break
			}
		}
	}
}

// mapping says which processes have files of a mount mapped. What cannot be read in time is not known,
// and not in the result: see userSearch.mappings.
func mapping(m MountPoint, pids []uint32) map[uint32]bool {
	s := &userSearch{mount: m}
	for _, pid := range pids {
		if pid != 0 {
			s.mapped = append(s.mapped, User{PID: int(pid)})
		}
	}
	s.mappings()
	maps := map[uint32]bool{}
	for _, u := range s.users {
		maps[uint32(u.PID)] = true
	}
	return maps
}

// mapsTime bounds the reading of mappings.
const mapsTime = 2 * time.Second

// mappings notes the processes that have files of the mount mapped. Reading a process's mappings waits
// for the lock of its address space, which a process that waits for the server may hold. So the time is
// bounded, and nobody waits for a goroutine that hangs. It ends when the server answers, or is aborted.
func (s *userSearch) mappings() {
	found, quit := make(chan User), make(chan struct{})
	defer close(quit)
	list := slices.Clone(s.mapped)
	go func() {
		defer close(found)
		for _, u := range list {
			if path := s.mapping(u.PID); path != "" {
				u.Kind, u.Path = UserMapping, path
				select {
				case found <- u:
				case <-quit:
					return
				}
			}
		}
	}()
	late := time.NewTimer(mapsTime)
	defer late.Stop()
	for {
		select {
		case u, ok := <-found:
			if !ok {
				return
			}
			s.add(u)
		case <-late.C:
			return
		}
	}
}

// mapping is a file of the mount that a process has mapped.
func (s *userSearch) mapping(pid int) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return ""
	}
	defer f.Close()
	device := fmt.Sprintf("00:%02x", s.mount.Minor)
	for in := bufio.NewScanner(f); in.Scan(); {
		// address perms offset device inode path
		line := strings.SplitN(in.Text(), " ", 6)
		if len(line) == 6 && line[3] == device {
			return strings.TrimSpace(line[5])
		}
	}
	return ""
}

// readLink returns a link's text, empty if it cannot be read.
func readLink(name string) string {
	text, _ := os.Readlink(name)
	return text
}

// An InUseError says that a mount cannot be removed because something uses it. It is ErrBusy.
type InUseError struct {
	Path string
	// Users are those that were found; none if /proc does not show the user.
	Users []User
	// Gone: the mount is not on Path any more, and the server goes on for the others until the
	// last of them is gone.
	Gone bool
}

func (e *InUseError) Error() string {
	what := "unmount " + e.Path
	if e.Gone {
		what += ": it is gone here, but its server goes on"
	}
	if len(e.Users) == 0 {
		return fmt.Sprintf("%s: %v, by what cannot be found in /proc", what, ErrBusy)
	}
	return fmt.Sprintf("%s: %v: %s", what, ErrBusy, strings.Join(userLines(e.Users), "; "))
}

// Is makes it ErrBusy.
func (e *InUseError) Is(target error) bool { return target == ErrBusy }

// shownUsers bounds how many users an error names.
const shownUsers = 8

func userLines(users []User) (lines []string) {
	for _, u := range users[:min(len(users), shownUsers)] {
		lines = append(lines, u.String())
	}
	if more := len(users) - shownUsers; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}
