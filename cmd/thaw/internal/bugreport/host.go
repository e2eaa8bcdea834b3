package bugreport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// maxFact bounds what is read of a file of the kernel.
const maxFact = 64 << 10

// Host describes this host: its kernel, its distribution, processor and memory, and the limits that matter.
func Host() string {
	var b strings.Builder
	facts(&b, "/proc/version", "/etc/os-release", "/proc/meminfo", "/proc/self/limits", "/proc/loadavg",
		"/proc/pressure/*", "/proc/sys/fs/fuse/*", "/proc/sys/fs/file-max", "/proc/sys/fs/nr_open",
		"/proc/sys/vm/max_map_count", "/proc/sys/vm/overcommit_memory", "/proc/sys/vm/swappiness",
		"/proc/sys/vm/unprivileged_userfaultfd", "/proc/sys/kernel/yama/ptrace_scope",
		"/sys/module/fuse/parameters/*", "/sys/module/kvm*/parameters/*", "/sys/fs/cgroup/memory.max",
		"/sys/kernel/mm/transparent_hugepage/enabled")
	fmt.Fprintf(&b, "== /proc/cpuinfo, the first processor\n%s\n", firstCPU())
	return b.String()
}

// Process describes a process: its limits, its memory, what it has open, and where its threads are. It can
// be had of one that does not answer.
func Process(pid int) (string, error) {
	proc := fmt.Sprintf("/proc/%d", pid)
	if _, err := os.Stat(proc); err != nil {
		return "", err
	}
	var b strings.Builder
	facts(&b, proc+"/limits", proc+"/status", proc+"/oom_score_adj", proc+"/schedstat")
	fmt.Fprintf(&b, "== descriptors\n%s\n", descriptors(proc))
	facts(&b, proc+"/task/*/comm", proc+"/task/*/wchan", proc+"/task/*/stack")
	return b.String(), nil
}

// facts prints small files under their names. Those that are not there are left out.
func facts(b *strings.Builder, patterns ...string) {
	for _, pattern := range patterns {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			text, err := readSome(name, maxFact)
			switch {
			case errors.Is(err, os.ErrNotExist):
			case err != nil:
				fmt.Fprintf(b, "== %s\n%v\n\n", name, err)
			case len(bytes.TrimSpace(text)) > 0:
				fmt.Fprintf(b, "== %s\n%s\n\n", name, bytes.TrimSpace(text))
			}
		}
	}
}

func readSome(name string, most int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text := make([]byte, most)
	n, err := f.Read(text)
	if n == 0 && err != nil && err.Error() != "EOF" {
		return nil, err
	}
	return text[:n], nil
}

// firstCPU is what the kernel tells of the first processor.
func firstCPU() string {
	text, err := readSome("/proc/cpuinfo", maxFact)
	if err != nil {
		return err.Error()
	}
	first, _, _ := strings.Cut(string(text), "\n\n")
	return first
}

// descriptors counts what a process has open, by kind.
func descriptors(proc string) string {
	files, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return err.Error()
	}
	kinds := map[string]int{}
	for _, f := range files {
		target, err := os.Readlink(filepath.Join(proc, "fd", f.Name()))
		kind, _, special := strings.Cut(target, ":")
		switch {
		case err != nil:
			kind = "closed meanwhile"
		case strings.HasPrefix(target, "/dev/"):
			kind = target
		case !special:
			kind = "file"
		}
		kinds[kind]++
	}
	return fmt.Sprintf("%d: %v", len(files), kinds)
}

// LogOf is the end of the log of a process that writes it into a file: what it has as its standard error.
func LogOf(pid, most int) (text string, err error) {
	name := fmt.Sprintf("/proc/%d/fd/2", pid)
	st, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", errors.New("it is not in a file; is it in the journal? (journalctl)")
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := f.Seek(max(0, st.Size()-int64(most)), 0); err != nil {
		return "", err
	}
	var b bytes.Buffer
	if _, err := bufio.NewReader(f).WriteTo(&b); err != nil {
		return "", err
	}
	tail := b.Bytes()
	if len(tail) == most { // not a half line
		_, tail, _ = bytes.Cut(tail, []byte("\n"))
	}
	return string(tail), nil
}
