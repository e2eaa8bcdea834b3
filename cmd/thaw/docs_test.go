package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// readme is the page that a stranger reads first.
const readme = "../../README.md"

// docs are the pages with commands: the README and the help topics, by their names.
func docs(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"README": string(text)}
	files, err := helpTexts.ReadDir("help")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := helpTexts.ReadFile("help/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(f.Name(), ".md")] = string(text)
	}
	return all
}

var (
	fenced   = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	indented = regexp.MustCompile(`(?m)(?:\A|\n\n)((?:    .*(?:\n+|\z))+)`)
)

// blocks are what a page shows to be typed: in the README between fences, in the help indented by four.
func blocks(page, text string) (all []string) {
	if page == "README" {
		for _, m := range fenced.FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
		return all
	}
	for _, m := range indented.FindAllStringSubmatch(text, -1) {
		var lines []string
		for line := range strings.Lines(m[1]) {
			lines = append(lines, strings.TrimPrefix(line, "    "))
		}
		all = append(all, strings.TrimSpace(strings.Join(lines, ""))+"\n")
	}
	return all
}

// step is a block of a page, and what a test makes of it.
type step struct {
	page, begins string // the block, by how it begins
	// done by is the test that does what it says; or, of what no test can do here, why.
	doneBy, skipped string
}

// steps are all blocks, in the order of the pages.
func steps() []step {
	const (
		users = "... stands for the user's machine"
		text  = "no command: what a program sends"

		firecracker = "needs Firecracker, which this host does not have"
	)
	return []step{
		{page: "README", begins: "go run ./cmd/thaw demo", doneBy: "tests/e2e TestDemo, and tests/run by itself"},
		{page: "README", begins: "go install", doneBy: "TestWalk"},
		{page: "README", begins: "cmd/thaw/packaging/build", doneBy: "the tests of the package"},
		{page: "README", begins: "mkdir -p /mnt/thaw", doneBy: "TestWalk"},

		{page: "firecracker", begins: "curl --unix-socket /run/fc.sock -X PATCH", skipped: firecracker},
		{page: "firecracker", begins: "thaw import /srv/store /srv/snap", doneBy: "TestWalk"},
		{page: "firecracker", begins: "curl --unix-socket /run/fc2.sock -X PUT", skipped: firecracker},
		{page: "firecracker", begins: "thaw ws record /mnt/thaw/web-1", skipped: firecracker},
		{page: "firecracker", begins: "mkdir -p /srv/jailer", skipped: firecracker},

		{page: "formats", begins: "thaw import /srv/store PATH --name NAME", doneBy: "TestWalk"},
		{page: "formats", begins: "thaw import /srv/store snapshot-2", doneBy: "script import_firecracker"},
		{page: "formats", begins: "-object memory-backend-file", doneBy: "tests/e2e: migration streams; " + users},
		{page: "formats", begins: `-incoming "exec:cat`, doneBy: "tests/e2e: migration streams; " + users},
		{page: "formats", begins: "virsh restore", doneBy: "tests/e2e: libvirt"},

		{page: "linux", begins: "thaw vm run --kernel",
			skipped: "a kernel needs VT-x or AMD-V; tests/boot boots one on a software CPU"},

		{page: "metrics", begins: "scrape_configs:", skipped: "a file of Prometheus"},

		{page: "qemu", begins: "qemu-system-x86_64 ... -m 512M \\\n  -object", doneBy: "TestWalkQEMU"},
		{page: "qemu", begins: `{"execute":"qmp_capabilities"}`, doneBy: "TestWalkQEMU"},
		{page: "qemu", begins: "mkdir saved", doneBy: "TestWalkQEMU"},
		{page: "qemu", begins: "qemu-system-x86_64 ... -m 512M -incoming", doneBy: "TestWalkQEMU"},
		{page: "qemu", begins: `{"execute":"qmp_capabilities"}`, doneBy: "TestWalkQEMU"},
		{page: "qemu", begins: `{"execute":"cont"}`, doneBy: "TestWalkQEMU"},
		{page: "qemu", begins: "thaw ws record", doneBy: "TestWalkQEMU"},
		{page: "qemu", begins: "thaw ws scan --qemu", doneBy: "tests/e2e: a Linux guest"},
		{page: "qemu", begins: "thaw ws scan --pid", doneBy: "tests/e2e: a Linux guest"},

		{page: "sealed", begins: "thaw key new /root/store.key", doneBy: "script sealed"},
		{page: "sealed", begins: "thaw key show /srv/store", doneBy: "script sealed"},

		{page: "uffd", begins: "thaw import /srv/store snapshot/",
			skipped: "needs Firecracker; tests/e2e has a client that plays its part"},
		{page: "uffd", begins: `[{"base_host_virt_addr"`, skipped: text},
	}
}

// Each command of the README and of the help is done by a test, or listed with the reason why it cannot be.
func TestEveryBlockIsKnown(t *testing.T) {
	known := map[string][]step{}
	for _, s := range steps() {
		known[s.page] = append(known[s.page], s)
	}
	for page, text := range docs(t) {
		found := blocks(page, text)
		if len(found) != len(known[page]) {
			t.Errorf("%s has %d blocks of commands, and %d are known:\n%s", page, len(found), len(known[page]),
				strings.Join(found, "--\n"))
			continue
		}
		for i, s := range known[page] {
			if !strings.HasPrefix(found[i], s.begins) {
				t.Errorf("%s: block %d is not %q:\n%s", page, i, s.begins, found[i])
			}
			if s.skipped != "" {
				t.Run(page+": "+firstLine(s.begins), func(t *testing.T) { t.Skip(s.skipped) })
			}
		}
	}
}

// block is the block of a page that begins so; nth counts those that begin alike.
func block(t *testing.T, page, begins string, nth int) string {
	t.Helper()
	for _, b := range blocks(page, docs(t)[page]) {
		if strings.HasPrefix(b, begins) {
			if nth == 0 {
				return b
			}
			nth--
		}
	}
	t.Fatalf("%s has no block that begins with %q", page, begins)
	return ""
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// said finds commands in a text: "thaw", its verbs, and the flags that follow.
var said = regexp.MustCompile(`\bthaw ((?:[a-z]+[ \n])*[a-z]+)((?:[ \n]+(?:--[a-z0-9-]+(?:=[^\s"` + "`" +
	`]*)?|[A-Z][A-Z/]*(?:\.\.\.)?|/[\w/.-]+|[\w.-]+/[\w/.-]*))*)`)

// Every command that a page, a manual or a hint names is there, with the flags that it names.
func TestCommandsThatAreSaidExist(t *testing.T) {
	texts := docs(t)
	a := &app{}
	root := newRootCommand(a)
	walk := func(path string, text ...string) { texts[path] = strings.Join(text, "\n") }
	for _, c := range root.Commands() {
		walk(c.CommandPath(), c.Long, c.Example)
		for _, sub := range c.Commands() {
			walk(sub.CommandPath(), sub.Long, sub.Example)
		}
	}
	for _, file := range sources(t) {
		texts[file.name] = strings.Join(file.strings, "\n")
	}
	checked := 0
	for where, text := range texts {
		for _, m := range said.FindAllStringSubmatch(text, -1) {
			words := strings.Fields(m[1])
			cmd, _, err := root.Find(words)
			if err != nil || cmd == root {
				if !slices.Contains(prose, words[0]) {
					t.Errorf("%s says %q: no such command", where, m[0])
				}
				continue
			}
			checked++
			for _, flag := range regexp.MustCompile(`--([a-z0-9-]+)`).FindAllStringSubmatch(m[2], -1) {
				name := flag[1]
				if cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil && name != "help" &&
					name != "version" {
					t.Errorf("%s says %q: %s has no --%s", where, m[0], cmd.CommandPath(), name)
				}
			}
		}
	}
	if checked < 100 {
		t.Errorf("only %d commands were found: the test looks at nothing", checked)
	}
}

// prose are words that follow the name of the program in sentences.
var prose = strings.Fields(`is has can keeps mount does uses made starts stores takes was store knows serves
	means in makes this the that and to it of server restores command promises for again ends itself mounts
	never on puts saves says writes wrote as`)
