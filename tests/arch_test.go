package tests

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const module = "github.com/thawfs/thaw/"

// allowed says which parts a part may import besides itself. An import that is not listed is an
// error: the VMM knows files and not what serves them, the store and the working sets know nobody.
var allowed = map[string][]string{
	"index": nil,
	"wss":   nil,
	"fs":    {"index", "wss"},
	"vmm":   {"wss"},
	"cmd":   {"fs", "index", "vmm", "wss"},
	"tests": {"cmd", "fs", "index", "vmm", "wss"},
}

// topLevel is everything that may lie at the top of the repository, dot files aside.
var topLevel = []string{"LICENSE", "README.md", "cmd", "fs", "go.mod", "go.sum", "index", "tests",
	"vmm", "wss"}

// listed is what of `go list -json` is needed here.
type listed struct {
	ImportPath, Dir, Doc, Name                         string
	GoFiles, CgoFiles, TestGoFiles, XTestGoFiles       []string
	IgnoredGoFiles, Imports, TestImports, XTestImports []string
	Error                                              *struct{ Err string }
}

func (p listed) part() string {
	part, _, _ := strings.Cut(strings.TrimPrefix(p.ImportPath, module), "/")
	return part
}

// packages lists the module for linux on the given architecture.
func packages(t *testing.T, arch string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json", "./...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list for %s: %v", arch, err)
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("go list for %s: %v", arch, err)
		}
		all = append(all, p)
	}
}

func TestImports(t *testing.T) {
	for _, p := range packages(t, "amd64") {
		imports := slices.Concat(p.Imports, p.TestImports, p.XTestImports)
		slices.Sort(imports)
		for _, i := range slices.Compact(imports) {
			if !strings.HasPrefix(i, module) {
				continue
			}
			if strings.HasPrefix(i, module+"tests/blobtest") && !slices.Contains(p.Imports, i) {
				continue // the suite of every blob.Store and its helpers are for tests of any part
			}
			from, to := p.part(), listed{ImportPath: i}.part()
			may, known := allowed[from]
			if !known {
				t.Errorf("%s: not one of the parts", p.ImportPath)
			} else if from != to && !slices.Contains(may, to) {
				t.Errorf("%s imports %s: %s may know only %v", p.ImportPath, i, from, may)
			}
			if p.ImportPath == module+"vmm/kvm" {
				t.Errorf("%s imports %s: it is the ioctls and nothing else", p.ImportPath, i)
			}
		}
	}
}

// TestServersDrawNothing: what serves a store or runs a machine has no use for figures. A package
// that draws would bring fonts and their parsers into it, more code than thaw itself.
func TestServersDrawNothing(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./fs", "./vmm")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps: %v", err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, module+"wss") {
		t.Fatalf("fs and vmm do not use wss: %d packages are listed", len(deps))
	}
	drawing := []string{"gonum.org", "codeberg.org", "git.sr.ht", "github.com/golang/freetype",
		"github.com/ajstarks", "golang.org/x/image", "image", "html/template", "text/template"}
	for _, dep := range deps {
		for _, d := range drawing {
			if strings.HasPrefix(dep+"/", d+"/") {
				t.Errorf("fs or vmm comes with %s", dep)
			}
		}
	}
}

func TestEveryPackageHasDoc(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		for _, p := range packages(t, arch) {
			if p.Doc == "" && len(p.GoFiles)+len(p.CgoFiles) > 0 {
				t.Errorf("%s has no package documentation (GOARCH=%s)", p.ImportPath, arch)
			}
		}
	}
}

// TestEveryPackageIsThereOnBothArchitectures: only vmm may have no files for arm64.
func TestEveryPackageIsThereOnBothArchitectures(t *testing.T) {
	names := map[string][]string{}
	for _, arch := range []string{"amd64", "arm64"} {
		for _, p := range packages(t, arch) {
			if len(p.GoFiles)+len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 && p.part() != "vmm" {
				names[arch] = append(names[arch], p.ImportPath)
			}
		}
	}
	for _, name := range names["amd64"] {
		if !slices.Contains(names["arm64"], name) {
			t.Errorf("%s has no files for linux/arm64", name)
		}
	}
}

// TestUnsafe keeps `unsafe` and assembly-like tricks where reviewers look for them.
func TestUnsafe(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		for _, p := range packages(t, arch) {
			for _, name := range slices.Concat(p.GoFiles, p.CgoFiles) {
				text := readFile(t, filepath.Join(p.Dir, name))
				if !strings.Contains(text, `"unsafe"`) && !strings.Contains(text, "//go:linkname") {
					continue
				}
				base := strings.TrimSuffix(strings.TrimSuffix(name, ".go"), "_"+arch)
				if !strings.HasSuffix(base, "_unsafe") {
					t.Errorf("%s/%s uses unsafe: only *_unsafe.go may", p.ImportPath, name)
				}
			}
		}
	}
}

func TestTopLevel(t *testing.T) {
	for _, name := range tracked(t) {
		first, _, _ := strings.Cut(name, "/")
		if !strings.HasPrefix(first, ".") && !slices.Contains(topLevel, first) {
			t.Errorf("%s: only %v lie at the top", name, topLevel)
		}
	}
}

// TestFormOfSources: limits that keep files readable, and words that say something is unfinished.
func TestFormOfSources(t *testing.T) {
	const maxLines, maxColumns = 500, 110
	unfinished := []string{"TO" + "DO", "FIX" + "ME", "XX" + "X:"}
	for _, name := range tracked(t) {
		if filepath.Ext(name) != ".go" {
			continue
		}
		in := bufio.NewScanner(strings.NewReader(readFile(t, filepath.Join("..", name))))
		in.Buffer(nil, 1<<20)
		line := 0
		for in.Scan() {
			line++
			text := in.Text()
			if utf8.RuneCountInString(text) > maxColumns {
				t.Errorf("%s:%d has more than %d columns", name, line, maxColumns)
			}
			for _, word := range unfinished {
				if strings.Contains(text, word) {
					t.Errorf("%s:%d says %s", name, line, word)
				}
			}
		}
		if line > maxLines && !strings.HasSuffix(name, "_test.go") {
			t.Errorf("%s has %d lines, more than %d", name, line, maxLines)
		}
	}
}

// tracked lists the files of the repository: what git knows, or, in an unpacked archive, all.
func tracked(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files")
	cmd.Dir = ".."
	if out, err := cmd.Output(); err == nil {
		return slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool {
			_, err := os.Lstat(filepath.Join("..", name))
			return err != nil // removed, and not yet committed so
		})
	}
	var names []string
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimPrefix(path, "../"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
