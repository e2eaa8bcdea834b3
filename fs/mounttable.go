package fs

import (
	"os"
	"strconv"
	"strings"
)

// A mountInfo is a line of /proc/PID/mountinfo.
type mountInfo struct {
	id         int
	minor      uint32 // of the device: the number of a FUSE connection
	root       string // the directory of the file system that is mounted; "/" but for bind mounts
	mountPoint string
	fsType     string
	options    string // of the file system
}

// A mountTable is the mounts of a namespace, the older first.
type mountTable []mountInfo

// selfMounts is the table of this process.
const selfMounts = "/proc/self/mountinfo"

func readMounts(name string) (mountTable, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var t mountTable
	for line := range strings.Lines(string(text)) {
		if m, ok := parseMountInfo(line); ok {
			t = append(t, m)
		}
	}
	return t, nil
}

// top is the topmost mount on an absolute path; nil if there is none.
func (t mountTable) top(path string) *mountInfo {
	for i := len(t) - 1; i >= 0; i-- {
		if t[i].mountPoint == path {
			return &t[i]
		}
	}
	return nil
}

// around is the thaw mount that an absolute path lies in, not being its mount point; nil if it lies
// in none.
func (t mountTable) around(path string) *mountInfo {
	var in *mountInfo
	for i := range t {
		m := &t[i]
		if path != m.mountPoint && under(path, m.mountPoint) &&
			(in == nil || len(m.mountPoint) >= len(in.mountPoint)) {
			in = m
		}
	}
	if in == nil || in.fsType != fsType {
		return nil
	}
	return in
}

// whole is where the root of the file system of a mount is: the mount itself or, for a bind mount of
// a part of it, another one. Empty if it is nowhere.
func (t mountTable) whole(m *mountInfo) string {
	if m.root == "/" {
		return m.mountPoint
	}
	for _, other := range t.of(m.minor) {
		if other.root == "/" {
			return other.mountPoint
		}
	}
	return ""
}

// of are the mounts of one thaw file system.
func (t mountTable) of(minor uint32) (all mountTable) {
	for _, m := range t {
		if m.fsType == fsType && m.minor == minor {
			all = append(all, m)
		}
	}
	return all
}

// under says whether an absolute path is dir or lies in it.
func under(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

// parseMountInfo takes a line apart: "36 35 98:0 /root /mount/point options [tags] - type source
// options".
func parseMountInfo(line string) (m mountInfo, ok bool) {
	before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
	if !ok {
		return m, false
	}
	left, right := strings.Fields(before), strings.Fields(after)
	if len(left) < 5 || len(right) < 1 {
		return m, false
	}
	id, err := strconv.Atoi(left[0])
	if err != nil {
		return m, false
	}
	_, minor, _ := strings.Cut(left[2], ":")
	n, err := strconv.ParseUint(minor, 10, 32)
	if err != nil {
		return m, false
	}
	m = mountInfo{
		id: id, minor: uint32(n), root: unescapeMount(left[3]), mountPoint: unescapeMount(left[4]),
		fsType: right[0],
	}
	if len(right) > 2 {
		m.options = unescapeMount(right[2])
	}
	return m, true
}

// unescapeMount undoes \040 and the like.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
