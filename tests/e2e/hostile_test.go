package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
)

// tiny is an image of 1 MiB.
var tiny = image.Spec{Pages: 256, Seed: 41}

// TestNamesThatLie: names that are paths, commands' flags, places of the mount, or cannot be seen.
func TestNamesThatLie(t *testing.T) {
	store, source := storeWith(t, tiny)
	for _, name := range []string{".", "..", "../x", "a/b", "/etc/passwd", "a/../../b", "", " ",
		".hidden", ".thaw", "clones", "a\x00b", "a\nb", "a\x1b[31mb", "a\x7fb", "\xff\xfe", "-rf",
		"--help", "a b", "a\\b", "naïve", strings.Repeat("x", 129), strings.Repeat("x", 4096)} {
		if strings.Contains(name, "\x00") {
			continue // cannot be an argument of a process
		}
		t.Run(fmt.Sprintf("%.20q", name), func(t *testing.T) {
			if name == "" { // means "choose one": the file's own name
				return
			}
			r := cli.Fails(t, "bad-name", "import", store, source, "--name="+name)
			if strings.ContainsAny(r.Stderr, "\x1b\x7f") {
				t.Errorf("the message has control bytes of the name: %q", r.Stderr)
			}
			for _, verb := range []string{"inspect", "rm"} {
				if r := cli.Run(t, verb, "--json", "--", store, name); r.Code == 0 {
					t.Errorf("%v", r)
				}
			}
		})
	}
	if got := names(t, store); !slices.Equal(got, []string{"vm"}) {
		t.Errorf("the store lists %q", got)
	}
	cli.OK(t, "import", store, source, "--name", strings.Repeat("x", 128))
	cli.OK(t, "import", store, source, "--name", "A-1_b.c")
	cli.Fails(t, "exists", "import", store, source, "--name", "vm")
	// A file whose own name is no good name needs another one, and that is all.
	odd := filepath.Join(t.TempDir(), "-odd\n name.mem")
	if err := tiny.Write(odd); err != nil {
		t.Fatal(err)
	}
	cli.Fails(t, "bad-name", "import", store, odd)
	cli.OK(t, "import", store, odd, "--name", "odd")
	cli.OK(t, "check", store, "--read-data")
}

// TestNamesOnTheMount: lookups of what cannot be are errors, and nothing else.
func TestNamesOnTheMount(t *testing.T) {
	store, source := storeWith(t, tiny)
	m := cli.Mount(t, store)
	c := m.Client(t)
	for name, want := range map[string]string{
		"none/memory":            "ENOENT",
		"vm/none":                "ENOENT",
		"vm/memory/x":            "ENOTDIR",
		strings.Repeat("x", 255): "ENOENT",
		strings.Repeat("x", 256): "ENOENT|ENAMETOOLONG",
		"vm/clones/a/none":       "ENOENT",
		"vm/clones/a/clones":     "ENOENT",
		"vm\n/memory":            "ENOENT",
		".thaw/none":             "ENOENT",
		"vm/clones/" + strings.Repeat("y", 256) + "/memory": "ENOENT|ENAMETOOLONG",
	} {
		a := c.Do(t, client.Request{Op: "open", Path: m.Path() + "/" + name, Map: client.Map{NoMap: true}})
		if a.Errno == "" || !strings.Contains(want, a.Errno) {
			t.Errorf("open %.40q: %q, want %s", name, a.Errno, want)
		}
	}
	// Any ID that is looked up exists; different IDs are different machines.
	for _, id := range []string{"a", strings.Repeat("z", 100), "with-dash", "Vm_1.2", "0"} {
		c.Open(t, m.Path("vm/clones", id, "memory"), client.Map{ReadWrite: true, Private: true})
		c.Right(t, client.Request{Count: tiny.Pages, Source: source})
	}
	// Nothing can be made, renamed or removed.
	for _, args := range [][]string{{"touch", m.Path("x")}, {"mkdir", m.Path("x")},
		{"rm", "-f", m.Path("vm/memory")}, {"mv", m.Path("vm"), m.Path("x")},
		{"ln", "-s", "/etc/passwd", m.Path("x")}, {"chmod", "777", m.Path("vm/memory")},
		{"rmdir", m.Path("vm")}} {
		if _, err := cli.Tool(t, cliLimit, args[0], args[1:]...); err == nil {
			t.Errorf("%v succeeded", args)
		}
	}
	out, err := cli.Tool(t, cliLimit, "find", m.Dir, "-type", "f")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"vm/memory", "vm/info.json", "vm/stats.json"} {
		if !strings.Contains(out, want) {
			t.Errorf("the tree lacks %s:\n%s", want, out)
		}
	}
}

// TestFilesThatAreNoImages are refused, and no store is made for them.
func TestFilesThatAreNoImages(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Repeat([]byte{1}, size), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "dirdir", "memory"), 0o755); err != nil {
		t.Fatal(err)
	}
	file("nomemory/state", 10)
	file("odd/memory", 5000)
	wrote := make(chan error, 1)
	// An import waits for a writer, as cat does.
	go func() { wrote <- os.WriteFile(fifo, make([]byte, 4097), 0) }()
	defer func() {
		if err := <-wrote; err != nil {
			t.Errorf("write into the pipe: %v", err)
		}
	}()
	for name, path := range map[string]string{
		"empty": file("empty", 0), "one byte": file("one", 1), "page less one": file("less", 4095),
		"page and one": file("more", 4097), "fifo": fifo,
		"device": "/dev/null", "endless device": "/dev/zero",
		"memory is a directory":    filepath.Join(dir, "dirdir"),
		"directory without memory": filepath.Join(dir, "nomemory"),
		"odd memory":               filepath.Join(dir, "odd"),
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			store := filepath.Join(t.TempDir(), "store")
			cli.Fails(t, "not-an-image", "import", store, path, "--name", "x")
			// What comes from a pipe is stored while it comes: there must be a store first.
			if _, err := os.Stat(store); err == nil && name != "fifo" {
				t.Error("a store was made for it")
			}
		})
	}
	for _, path := range []string{filepath.Join(dir, "missing"), loop} {
		if r := cli.Run(t, "import", filepath.Join(dir, "s"), path, "--name", "x"); r.Code == 0 {
			t.Errorf("%v", r)
		}
	}
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, file("page", 4096), "--name", "page") // the smallest image
	huge := filepath.Join(dir, "huge")
	f, err := os.Create(huge)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 40); err != nil { // 1 TiB of nothing
		t.Skipf("the file system has no sparse files of 1 TiB: %v", err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{7}, 4096), 1<<39); err != nil {
		t.Fatal(err)
	}
	f.Close()
	cli.OK(t, "import", store, huge, "--name", "huge")
	m := cli.Mount(t, store)
	c := m.Client(t)
	if a := c.Open(t, m.Path("huge/memory"), client.Map{NoMap: true}); a.Size != 1<<40 {
		t.Errorf("size %d", a.Size)
	}
	for off, want := range map[int64]byte{0: 0, 1 << 39: 7, 1<<40 - 4096: 0} {
		a := c.Must(t, client.Request{Op: "pread", Offset: off, Length: 4096})
		if !bytes.Equal(a.Data, bytes.Repeat([]byte{want}, 4096)) {
			t.Errorf("wrong page at %d", off)
		}
	}
}

// TestStoresThatAreNone: other directories and other versions are refused and stay as they are.
func TestStoresThatAreNone(t *testing.T) {
	source := writeImage(t, tiny)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "diary"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	mnt := t.TempDir()
	cli.Fails(t, "not-a-store", "import", dir, source, "--name", "x")
	for _, args := range [][]string{{"ls", dir}, {"check", dir}, {"gc", dir}, {"mount", dir, mnt},
		{"inspect", dir, "x"}, {"rm", dir, "x"}, {"ls", filepath.Join(dir, "diary")},
		{"ls", filepath.Join(dir, "missing")}, {"mount", filepath.Join(dir, "missing"), mnt}} {
		cli.Fails(t, "not-a-store", args...)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory has changed: %v %v", entries, err)
	}

	store, _ := storeWith(t, tiny)
	format := filepath.Join(store, "thaw-store.json")
	text, err := os.ReadFile(format)
	if err != nil {
		t.Fatal(err)
	}
	other := replaceVersion(string(text))
	if other == string(text) {
		t.Fatalf("found no version in %s", text)
	}
	if err := os.WriteFile(format, []byte(other), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ls", store}, {"check", store}, {"gc", store},
		{"mount", store, mnt}, {"import", store, source, "--name", "x"}, {"rm", store, "vm"}} {
		cli.Fails(t, "version", args...)
	}
	if err := os.WriteFile(format, text, 0o644); err != nil {
		t.Fatal(err)
	}
	cli.OK(t, "check", store, "--read-data")
	if err := os.WriteFile(format, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := cli.Run(t, "ls", store, "--json"); r.Code == 0 {
		t.Errorf("a store with a broken format file opens: %v", r)
	}
}

// replaceVersion makes the number of the field "version" another one.
func replaceVersion(text string) string {
	before, after, ok := strings.Cut(text, `"version":`)
	if !ok {
		return text
	}
	return before + `"version": 9` + strings.TrimLeft(after, " ")
}

// TestMountPointProblems: each says what is wrong, and nothing is mounted.
func TestMountPointProblems(t *testing.T) {
	cli.NeedFUSE(t)
	store, source := storeWith(t, tiny)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cli.Fails(t, "mount-point", "mount", store, filepath.Join(dir, "missing"))
	cli.Fails(t, "mount-point", "mount", store, filepath.Join(dir, "file"))
	cli.Fails(t, "mount-point", "mount", store, dir)
	cli.Fails(t, "mount-point", "mount", store, filepath.Join(dir, "missing"), "--daemon")
	if r := cli.Run(t, "mount", store, store, "--json"); r.Code == 0 {
		t.Errorf("a store was mounted on itself: %v", r)
	}
	cli.Fails(t, "usage", "mount", store, t.TempDir(), "--restore=magic")
	cli.Fails(t, "not-found", "umount", dir)
	cli.Fails(t, "not-found", "stats", dir)

	m := cli.Mount(t, store)
	cli.Fails(t, "locked", "mount", store, t.TempDir()) // two servers on one store
	other, _ := storeWith(t, tiny)
	cli.Fails(t, "mount-point", "mount", other, m.Dir) // two stores on one place
	c := m.Client(t)
	c.Open(t, m.Path("vm/memory"), client.Map{Private: true})
	c.Right(t, client.Request{Count: tiny.Pages, Source: source})
}
