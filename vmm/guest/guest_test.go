package guest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestLoad(t *testing.T) {
	tests := []struct {
		spec Spec
		err  string // part of it; "" is none
	}{
		{Spec{Program: "heap"}, ""},
		{Spec{Program: "heap", Args: map[string]string{"set": "64MiB", "seed": "0x10", "cold": "0"}}, ""},
		{Spec{Program: "stream", Args: map[string]string{"period": "20ms", "fill": "50"}}, ""},
		{Spec{Program: "random:1"}, ""},
		{Spec{Program: "random:100"}, ""},
		{Spec{Program: "registers"}, ""},
		{Spec{Program: ""}, "there is no guest program"},
		{Spec{Program: "../heap"}, "there is no guest program"},
		{Spec{Program: "random"}, "random:PCT"},
		{Spec{Program: "random:0"}, "random:PCT"},
		{Spec{Program: "random:101"}, "random:PCT"},
		{Spec{Program: "heap:3"}, "only random"},
		{Spec{Program: "registers", Args: map[string]string{"seed": "1"}}, "takes no options"},
		{Spec{Program: "heap", Args: map[string]string{"sed": "1"}}, "unknown option"},
		{Spec{Program: "heap", Args: map[string]string{"fill": "101"}}, "from 1 to 100"},
		{Spec{Program: "heap", Args: map[string]string{"set": "12"}}, "at least a page"},
		{Spec{Program: "heap", Args: map[string]string{"set": "many"}}, "set=many"},
		{Spec{Program: "idle", Args: map[string]string{"period": "1us"}}, "from 1ms"},
	}
	for _, c := range tests {
		p, err := Load(c.spec)
		switch {
		case c.err == "" && err != nil:
			t.Errorf("%+v: %v", c.spec, err)
		case c.err == "" && len(p.Binary) == 0:
			t.Errorf("%+v: no binary", c.spec)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%+v: %v, want %q", c.spec, err, c.err)
		}
	}
}

func TestBoot(t *testing.T) {
	boot := func(s Spec, r RAM) (Boot, error) {
		p, err := Load(s)
		if err != nil {
			t.Fatal(err)
		}
		return p.Boot(r)
	}
	gib := RAM{First: 771, End: 1 << 18}
	b, err := boot(Spec{Program: "heap"}, gib)
	if err != nil {
		t.Fatal(err)
	}
	if b.Set != 192<<20/pageSize || b.Roots+b.Tables+b.Pages > gib.End-gib.First ||
		b.Pages < gib.End-gib.First-300 {
		t.Errorf("heap in 1 GiB: %+v", b)
	}
	if b, _ = boot(Spec{Program: "random:10"}, gib); b.Set != 26214 {
		t.Errorf("random:10 in 1 GiB: %+v", b)
	}
	// A default is cut down to what there is, an explicit size is not.
	small := RAM{First: 300, End: 8192}
	if b, err = boot(Spec{Program: "heap"}, small); err != nil || b.Set == 0 || b.Set > b.Pages {
		t.Errorf("heap in 32 MiB: %+v, %v", b, err)
	}
	large := Spec{Program: "heap", Args: map[string]string{"set": "192MiB"}}
	if _, err = boot(large, small); err == nil {
		t.Error("192 MiB fit into 32")
	}
	if _, err = boot(Spec{Program: "heap"}, RAM{First: 300, End: 310}); err == nil {
		t.Error("a heap fits into 10 pages")
	}
	hole := RAM{First: 300, End: 20000, HoleFirst: 1000, HoleCount: 9000}
	if b, err = boot(Spec{Program: "idle"}, hole); err != nil || b.Roots+b.Tables+b.Pages > 19700-9000 {
		t.Errorf("with a hole: %+v, %v", b, err)
	}
}

func TestLayOut(t *testing.T) {
	for n := uint64(0); n < 5_000_000; n = n*3/2 + 1 {
		roots, tables, pages := layOut(n)
		if pages == 0 {
			if n > 2 {
				t.Errorf("layOut(%d) found nothing", n)
			}
			continue
		}
		if roots+tables+pages > n || pages > tables*entries || tables > roots*entries {
			t.Errorf("layOut(%d) = %d, %d, %d", n, roots, tables, pages)
		}
		if waste := n - roots - tables - pages; waste > 2 {
			t.Errorf("layOut(%d) leaves %d frames", n, waste)
		}
	}
}

// The boot page as C sees it.
func TestBootLayout(t *testing.T) {
	h, err := os.ReadFile("src/guest.h")
	if err != nil {
		t.Fatal(err)
	}
	body := regexp.MustCompile(`(?s)struct boot \{(.*?)\};`).FindSubmatch(h)
	if body == nil {
		t.Fatal("no struct boot in src/guest.h")
	}
	var names []string
	for _, m := range regexp.MustCompile(`u64 (\w+);`).FindAllSubmatch(body[1], -1) {
		names = append(names, string(m[1]))
	}
	want := "magic seed first hole_first hole_count roots tables pages set limit period_us " +
		"write_percent cold cluster"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("struct boot has %q, Boot writes %q", got, want)
	}
	b := Boot{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}.Encode()
	for i := range 14 {
		if b[i*8] != byte(i+1) {
			t.Errorf("field %d is not at %d", i, i*8)
		}
	}
	for name, value := range map[string]string{
		"BOOT_MAGIC": fmt.Sprintf("%#xul", uint64(bootMagic)),
		"BOOT ":      fmt.Sprintf("((const struct boot *)%#x)", BootAddr),
	} {
		if !bytes.Contains(h, []byte("#define "+strings.TrimSpace(name)+" "+value)) {
			t.Errorf("src/guest.h does not define %s as %s", name, value)
		}
	}
}

// The committed binaries come from the committed sources.
func TestBinariesAreReproducible(t *testing.T) {
	gcc, err := exec.Command("gcc", "--version").Output()
	if err != nil {
		t.Skipf("needs gcc: %v", err)
	}
	objcopy, err := exec.Command("objcopy", "--version").Output()
	if err != nil {
		t.Skipf("needs objcopy: %v", err)
	}
	line := func(b []byte) string { s, _, _ := strings.Cut(string(b), "\n"); return s + "\n" }
	made, err := files.ReadFile("bin/compiler")
	if err != nil {
		t.Fatal(err)
	}
	if here := line(gcc) + line(objcopy); here != string(made) {
		t.Skipf("needs the compiler that made the binaries: %q here, they were made by %q", here, made)
	}
	dir := t.TempDir()
	if out, err := exec.Command("sh", "src/build.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	for _, name := range Names() {
		want, err := files.ReadFile("bin/" + name + ".bin")
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "bin", name+".bin"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the committed binary is not what its source gives; run go generate", name)
		}
		if len(want) > 8<<10 {
			t.Errorf("%s has %d bytes, a few KB were promised", name, len(want))
		}
	}
}
