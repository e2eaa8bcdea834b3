package importer

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxNamed is how many files a note names.
const maxNamed = 10

// tellLeftOut notes what of a directory is not imported, so that nobody deletes it. Hidden files, and what a
// mount shows of itself, are nobody's.
func (s *Source) tellLeftOut(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // a file, or one that is read in another way
	}
	taken := map[string]bool{filepath.Base(s.Memory): true, "memory": true, "info.json": true,
		"stats.json": true}
	for _, path := range s.Files {
		if filepath.Dir(path) == filepath.Clean(dir) {
			taken[filepath.Base(path)] = true
		}
	}
	for _, name := range s.added {
		taken[name] = true
	}
	if _, err := os.Stat(filepath.Join(dir, "stats.json")); err == nil {
		taken["clones"] = true
	}
	var out []string
	for _, e := range entries {
		if name := e.Name(); !taken[name] && name[0] != '.' {
			out = append(out, fmt.Sprintf("%s (%s)", name, kindOf(filepath.Join(dir, name))))
		}
	}
	if n := len(out); n > maxNamed {
		out = append(out[:maxNamed], fmt.Sprintf("%d more", n-maxNamed))
	}
	if len(out) > 0 {
		s.note("not imported: " + strings.Join(out, ", "))
	}
}

// note adds to what is to be known of a source.
func (s *Source) note(text string) {
	if s.Note != "" {
		text = s.Note + "; " + text
	}
	s.Note = text
}

// kindOf says what there is at a path.
func kindOf(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		return "a link to nothing"
	}
	switch mode := st.Mode(); {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "a file"
}
