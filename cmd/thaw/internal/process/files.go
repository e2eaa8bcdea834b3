package process

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Files are open files that one server leaves to the next, by name. They reach it in one of three ways:
// the server runs the next program in its own process (Exec), a holder starts it (Give), or systemd does,
// from its store of descriptors (LISTEN_FDS).
type Files map[string]*os.File

const (
	// filesEnv names them: name=descriptor,...
	filesEnv = "THAW_FILES"
	// filePrefix is what their names begin with in systemd's store, which other things may use, too.
	filePrefix = "thaw-"
	// firstListenFD is SD_LISTEN_FDS_START.
	firstListenFD = 3
)

// InheritedFiles returns what this process was given. It can be called once: the processes that this one
// starts are not to believe that the files are theirs.
func InheritedFiles() Files {
	given := parseFiles(os.Getenv(filesEnv))
	maps.Copy(given, listenFDs(os.Getpid(), os.Getenv))
	for _, name := range []string{filesEnv, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		_ = os.Unsetenv(name)
	}
	files := Files{}
	for name, fd := range given {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			continue // it is not there
		}
		syscall.CloseOnExec(fd)
		files[name] = os.NewFile(uintptr(fd), name)
	}
	return files
}

// parseFiles reads the form of filesEnv.
func parseFiles(text string) map[string]int {
	fds := map[string]int{}
	for _, item := range strings.Split(text, ",") {
		name, number, _ := strings.Cut(item, "=")
		if fd, err := strconv.Atoi(number); err == nil && fd > 2 && name != "" {
			fds[name] = fd
		}
	}
	return fds
}

// listenFDs reads what systemd says of the files that it gives, those of ours among them.
func listenFDs(pid int, getenv func(string) string) map[string]int {
	fds := map[string]int{}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return fds
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	for i := range min(n, len(names)) {
		if name, ours := strings.CutPrefix(names[i], filePrefix); ours && name != "" {
			fds[name] = firstListenFD + i
		}
	}
	return fds
}

// Give has a process that is to be started get the files.
func (f Files) Give(cmd *exec.Cmd) {
	var items []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		items = append(items, fmt.Sprintf("%s=%d", name, 3+len(cmd.ExtraFiles)))
		cmd.ExtraFiles = append(cmd.ExtraFiles, f[name])
	}
	cmd.Env = append(cmd.Environ(), filesEnv+"="+strings.Join(items, ","))
}

// Exec runs a program in this process in place of this one, with the files. It returns only if that fails.
func (f Files) Exec(program string, args []string) error {
	var items []string
	for name, file := range f {
		fd := int(file.Fd())
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		items = append(items, fmt.Sprintf("%s=%d", name, fd))
	}
	env := append(os.Environ(), filesEnv+"="+strings.Join(items, ","))
	return &os.PathError{Op: "exec", Path: program, Err: syscall.Exec(program, args, env)}
}

// Close closes all of them.
func (f Files) Close() error {
	var errs []error
	for _, file := range f {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}

// CopyOf makes a file of a descriptor, with a copy of it.
func CopyOf(name string, fd int) (*os.File, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(own), name), nil
}
