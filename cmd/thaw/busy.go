package main

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxBusyNames is how many processes usedBy names.
const maxBusyNames = 4

// usedBy says which processes use a mount: " (by qemu-system-x86 (pid 42), ...)". It is "" where
// none is seen, as of other users' processes. It reads /proc only, never the mount.
func usedBy(mnt string) string {
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return ""
	}
	var names []string
	for _, proc := range pids {
		if !uses(proc, mnt) {
			continue
		}
		if len(names) == maxBusyNames {
			names = append(names, "...")
			break
		}
		name, _ := os.ReadFile(filepath.Join(proc, "comm"))
		names = append(names, strings.TrimSpace(string(name))+" (pid "+filepath.Base(proc)+")")
	}
	if len(names) == 0 {
		return ""
	}
	return " by " + strings.Join(names, ", ")
}

// uses says whether a process has its working directory, an open file or a mapping below mnt.
func uses(proc, mnt string) bool {
	if filepath.Base(proc) == strconv.Itoa(os.Getpid()) {
		return false
	}
	for _, link := range []string{"cwd", "root"} {
		if at, err := os.Readlink(filepath.Join(proc, link)); err == nil && below(at, mnt) {
			return true
		}
	}
	fds, _ := filepath.Glob(filepath.Join(proc, "fd", "*"))
	for _, fd := range fds {
		if at, err := os.Readlink(fd); err == nil && below(at, mnt) {
			return true
		}
	}
	f, err := os.Open(filepath.Join(proc, "maps"))
	if err != nil {
		return false
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if i := strings.IndexByte(sc.Text(), '/'); i >= 0 && below(sc.Text()[i:], mnt) {
			return true
		}
	}
	return false
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
