package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// thawType is what the table of mounts shows of a thaw mount.
const thawType = "fuse.thaw"

// mountLine is a line of the table of mounts.
type mountLine struct {
	device string // of the file system
	root   string // the directory of the file system that is mounted; "/" but for bind mounts
	point  string
	fsType string
}

// readMounts reads the table of mounts of this process.
func readMounts() ([]mountLine, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("table of mounts: %w", err)
	}
	var all []mountLine
	for line := range strings.Lines(string(text)) {
		// 36 35 98:0 /root /mount/point options [tags] - type source options
		before, after, _ := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) > 4 && len(right) > 0 {
			all = append(all, mountLine{left[2], unescapeMount(left[3]), unescapeMount(left[4]), right[0]})
		}
	}
	return all, nil
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

// location is where a path lies: on a thaw mount, and where in it; or on none.
type location struct {
	path  string     // absolute; without symbolic links, as far as it is on no thaw mount
	mount *mountLine // nil: none
	top   string     // where the root of that file system is mounted; "": nowhere in this namespace
	rel   string     // in the mount's file system, "." for its root
}

// maxLinks is how many symbolic links a path may have, as for the kernel.
const maxLinks = 40

// locate finds the thaw mount that a path is on, without asking that mount for anything: the table
// of mounts tells where it begins, and what lies below is only a name.
func locate(path string) (location, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return location{}, err
	}
	table, err := readMounts()
	if err != nil {
		return location{}, err
	}
	top := make(map[string]*mountLine, len(table)) // of several on one place the last one is seen
	for i := range table {
		top[table[i].point] = &table[i]
	}
	rest := elements(abs)
	at, links := "/", 0
	for {
		if m := top[at]; m != nil && m.fsType == thawType {
			below := filepath.Join(rest...)
			in, err := filepath.Rel("/", filepath.Join(m.root, below))
			return location{filepath.Join(at, below), m, topOf(table, m), in}, err
		}
		if len(rest) == 0 {
			return location{path: at}, nil
		}
		next := filepath.Join(at, rest[0])
		rest = rest[1:]
		if m := top[next]; m != nil {
			at = next
			continue
		}
		target, err := os.Readlink(next)
		if err != nil {
			at = next // no link, or not there: then the rest is only a name too
			continue
		}
		if links++; links > maxLinks {
			return location{path: abs}, nil
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(at, target)
		}
		at, rest = "/", append(elements(filepath.Clean(target)), rest...)
	}
}

// topOf is where the root of a mount's file system is: the mount itself, or for a bind mount of a
// part of it another one.
func topOf(table []mountLine, m *mountLine) string {
	if m.root == "/" {
		return m.point
	}
	for _, other := range table {
		if other.device == m.device && other.root == "/" {
			return other.point
		}
	}
	return ""
}

// elements takes a clean absolute path apart.
func elements(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}
