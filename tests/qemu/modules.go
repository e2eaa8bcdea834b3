package qemu

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Modules finds loadable modules of a kernel by their names, with those that they need, in the
// order in which they must be loaded. What the kernel has built in is left out.
func Modules(kernel string, names ...string) ([]string, error) {
	return modulesIn("/lib/modules/"+strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-"), names)
}

func modulesIn(dir string, names []string) ([]string, error) {
	needs, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("modules of the kernel: %w", err)
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("modules of the kernel: %w", err)
	}
	var have []string
	for line := range strings.Lines(string(builtin)) {
		have = append(have, moduleName(line))
	}
	var found []string
	for _, name := range names {
		list := dependencies(string(needs), moduleName(name))
		if list == nil && !slices.Contains(have, moduleName(name)) {
			return nil, fmt.Errorf("modules of the kernel: no %s in %s", name, dir)
		}
		for _, path := range list {
			if path = filepath.Join(dir, path); !slices.Contains(found, path) {
				found = append(found, path)
			}
		}
	}
	return found, nil
}

// dependencies finds a module's line of modules.dep, `path: path of what it needs...`: needed ones
// are loaded from the last to the first, the module itself at the end.
func dependencies(deps, name string) []string {
	in := bufio.NewScanner(strings.NewReader(deps))
	for in.Scan() {
		path, needs, _ := strings.Cut(in.Text(), ":")
		if moduleName(path) == name {
			list := append([]string{path}, strings.Fields(needs)...)
			slices.Reverse(list)
			return list
		}
	}
	return nil
}

// moduleName is the name of a module's file: those of kvm-amd and kvm_amd are the same.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(strings.TrimSpace(path)), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
