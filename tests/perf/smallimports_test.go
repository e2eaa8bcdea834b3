package perf

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/image"
)

var smallImports = flag.Int("load.imports", 500, "small images that are imported")

// TestSmallImports imports many small images into one store: by one command, and by one command for each.
// Beside it are cp and zstd, one command for each file, which is synced.
func TestSmallImports(t *testing.T) {
	images, pages := *smallImports, uint64(1<<10)
	if !*full {
		images, pages = 12, 64
	}
	dir := t.TempDir()
	var paths []string
	for i := range images {
		path := filepath.Join(dir, fmt.Sprintf("vm%03d.mem", i))
		if err := (image.Spec{Pages: pages, Seed: uint64(i) + 1}).Write(path); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	if _, err := cli.Tool(t, time.Minute, "sync", "-f", dir); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	line := func(what string, e effort, half time.Duration) {
		fmt.Fprintf(&out, "%-34s %8.1f s %8.1f s of CPU %8.1f ms each", what, e.Wall.Seconds(), e.CPU.Seconds(),
			e.Wall.Seconds()*1e3/float64(images))
		if half > 0 {
			fmt.Fprintf(&out, ", in the second half %.1f", half.Seconds()*1e3/float64(images-images/2))
		}
		fmt.Fprintln(&out)
	}
	whole := filepath.Join(dir, "whole")
	line("thaw import, one command", spend(t, cli.Command(append([]string{"import", whole}, paths...)...),
		time.Hour, io.Discard), 0)
	single := filepath.Join(dir, "single")
	each := func(command func(i int, path string) *exec.Cmd) (sum effort, half time.Duration) {
		for i, path := range paths {
			e := spend(t, command(i, path), time.Minute, io.Discard)
			sum.Wall, sum.CPU = sum.Wall+e.Wall, sum.CPU+e.CPU
			if i >= images/2 {
				half += e.Wall
			}
		}
		return sum, half
	}
	sum, half := each(func(_ int, path string) *exec.Cmd { return cli.Command("import", single, path) })
	line("thaw import, a command for each", sum, half)
	sum, _ = each(func(_ int, path string) *exec.Cmd {
		return exec.Command("sh", "-c", `cp --reflink=never "$0" "$0.copy" && sync "$0.copy"`, path)
	})
	line("cp, sync", sum, 0)
	if _, err := exec.LookPath("zstd"); err == nil {
		sum, _ = each(func(_ int, path string) *exec.Cmd {
			return exec.Command("sh", "-c", `zstd -3 -q "$0" && sync "$0.zst"`, path)
		})
		line("zstd -3, sync", sum, 0)
	}
	t.Logf("%d images of %d KiB\n%s", images, pages*4, out.String())
	for _, store := range []string{whole, single} {
		if n := len(cli.JSON[[]struct{ Name string }](t, "ls", store)); n != images {
			t.Errorf("%d checkpoints, want %d", n, images)
		}
		cli.OK(t, "check", store)
	}
	if err := os.RemoveAll(whole); err != nil {
		t.Fatal(err)
	}
}
