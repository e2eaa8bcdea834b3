package index

import "strings"

// maxName is the length of the longest name, in bytes: with generation and suffix it stays below
// the 255 bytes that file systems allow.
const maxName = 128

// reserved names mean something else in the tree of a mount.
var reserved = map[string]bool{"clones": true, "lost+found": true}

// CheckName says whether name may name a checkpoint: 1 to 128 bytes of [A-Za-z0-9._-], not
// beginning with a dot or a dash, and not a word that the mount uses itself. The error is a
// *NameError.
func CheckName(name string) error {
	if why := nameFault(name); why != "" {
		return &NameError{Name: name, Why: why}
	}
	if reserved[strings.ToLower(name)] {
		return &NameError{Name: name, Why: "reserved"}
	}
	return nil
}

// CheckFileName is CheckName for the files of a checkpoint beside its memory.
func CheckFileName(name string) error {
	if why := nameFault(name); why != "" {
		return &NameError{Name: name, Why: why}
	}
	switch name {
	case fileMemory, fileInfo, fileStats, "clones":
		return &NameError{Name: name, Why: "reserved"}
	}
	return nil
}

// Names in a checkpoint directory that mean something to the store.
const (
	fileMemory     = "memory"
	fileInfo       = "info.json"
	fileStats      = "stats.json" // the mount's live counters: never imported
	fileWorkingSet = "working-set"
)

func nameFault(name string) string {
	switch {
	case name == "":
		return "empty"
	case len(name) > maxName:
		return "longer than 128 bytes"
	case name[0] == '.':
		return "begins with a dot"
	case name[0] == '-':
		return "begins with a dash"
	}
	if strings.Trim(name, nameBytes) != "" {
		return "may hold letters, digits, '.', '_' and '-' only"
	}
	return ""
}

const nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
