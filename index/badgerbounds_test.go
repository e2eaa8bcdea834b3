package index

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/thawfs/thaw/index/pack"
)

// writePacks writes the rows of so many pages, as those of packs come: a whole pack at a time, sorted.
func writePacks(t *testing.T, k keyStore, pages, perPack int, after func()) {
	t.Helper()
	r := rand.New(rand.NewPCG(92, 1))
	rows := make([]row, perPack)
	for number := 1; (number-1)*perPack < pages; number++ {
		for i := range rows {
			var h pack.Hash
			for j := range pageKeySize {
				h[j] = byte(r.Uint32())
			}
			rows[i] = pageRow(h, pack.MakeRef(uint64(number), uint32(i)))
		}
		sortRows(rows)
		if err := updateAll(context.Background(), k, rows); err != nil {
			t.Fatal(err)
		}
		after()
	}
}

// Badger makes no table that is larger than it is to be, of which it would build some at once, and never has
// so many tables in level 0 that it makes one large table of them.
func TestBadgerTablesAreBounded(t *testing.T) {
	if os.Getenv("THAW_TEST_EMULATOR") != "" {
		t.Skip("it takes long where instructions are emulated, and depends on none")
	}
	dir := filepath.Join(t.TempDir(), "index")
	k, err := openBadger(indexPlace{Dir: dir}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	db := k.(*badgerKeys).db
	most := 0
	writePacks(t, k, fewer(2_000_000, 400_000), 1<<14, func() {
		most = max(most, db.Levels()[0].NumTables)
	})
	if err := k.close(); err != nil {
		t.Fatal(err)
	}
	if most >= 4 { // as many as Badger makes one of
		t.Errorf("%d tables in level 0", most)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	largest := int64(0)
	for _, name := range tables {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, st.Size())
	}
	t.Logf("%d tables, the largest of %d bytes; up to %d in level 0", len(tables), largest, most)
	if len(tables) < 2 || largest > 2<<20 {
		t.Errorf("%d tables, the largest of %d bytes", len(tables), largest)
	}
}

// maxKeeperMemory is what a keeper may take that indexes 8 million pages (32 GiB), its mapped files included.
const maxKeeperMemory = 300 << 20

func TestKeeperMemory(t *testing.T) {
	if os.Getenv("THAW_TEST_EMULATOR") != "" {
		t.Skip("it would measure the emulator")
	}
	lock, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	at := indexPlace{Dir: filepath.Join(t.TempDir(), "index")}
	k, err := startKeeper(t.Context(), testKeeper(), lock, at, keeperTimeout)
	if err != nil {
		t.Fatal(err)
	}
	pid := k.(*keptKeys).proc.Process.Pid
	pages := fewer(8_200_000, 200_000)
	writePacks(t, k, pages, 1<<16, func() {})
	peak := peakMemory(t, pid)
	if err := k.close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d pages: %d MiB", pages, peak>>20)
	if peak > maxKeeperMemory {
		t.Errorf("a keeper took %d MiB to index %d pages", peak>>20, pages)
	}
}

// peakMemory is the most memory that a process had.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no peak of memory in /proc")
	return 0
}
