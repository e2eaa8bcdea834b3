package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/pack"
)

const keeperEnv = "THAW_TEST_KEEPER" // makes the test binary a keeper

// thisBinary starts the test binary again: by an emulator where that is what runs this process.
func thisBinary() *exec.Cmd {
	if emulator := os.Getenv("THAW_TEST_EMULATOR"); emulator != "" {
		return exec.Command(emulator, os.Args[0])
	}
	return exec.Command(os.Args[0])
}

// testKeeper is a keeper for tests: this binary.
func testKeeper() *exec.Cmd {
	cmd := thisBinary()
	cmd.Env = append(os.Environ(), keeperEnv+"=1")
	return cmd
}

// openKept opens a store as commands do, with its index in another process: from the first page on.
func openKept(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(context.Background(), dir, OpenOptions{Create: true, Keeper: testKeeper, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.limits.tailPages = 0
	return s
}

// keeperOf returns the keeper of a store that has used its index.
func keeperOf(t testing.TB, s *Store) *keptKeys {
	t.Helper()
	if _, _, err := s.hints.ready(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	k, ok := s.hints.db.(*keptKeys)
	if !ok {
		t.Fatalf("the index is a %T", s.hints.db)
	}
	return k
}

// All indexes do the same.
func TestKeyStores(t *testing.T) {
	ctx := context.Background()
	lock, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	for name, open := range map[string]func(dir string) (keyStore, error){
		"memory": func(string) (keyStore, error) { return newMemKeys(), nil },
		"badger": func(dir string) (keyStore, error) { return openBadger(indexPlace{Dir: dir}, testLog(t)) },
		"keeper": func(dir string) (keyStore, error) {
			return startKeeper(ctx, testKeeper(), lock, indexPlace{Dir: dir}, keeperTimeout)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "index")
			k, err := open(dir)
			if err != nil {
				t.Fatal(err)
			}
			testKeyStore(t, k, name == "memory")
			if err := k.close(); err != nil {
				t.Fatal(err)
			}
			if name == "memory" {
				return
			}
			if k, err = open(dir); err != nil {
				t.Fatal(err)
			}
			if v, err := k.get(ctx, metaKey("x")); err != nil || string(v) != "yes" {
				t.Errorf("after closing: %q %v", v, err)
			}
			k.kill()
		})
	}
}

func testKeyStore(t *testing.T, k keyStore, inMemory bool) {
	t.Helper()
	ctx := context.Background()
	r := rand.New(rand.NewPCG(91, 1))
	hashes := make([]pack.Hash, maxRows)
	rows := make([]row, maxRows)
	for i := range hashes {
		for j := range hashes[i] {
			hashes[i][j] = byte(r.Uint32())
		}
		key := pageKey(hashes[i])
		rows[i] = row{key[:], refValue(uint64(i + 1))}
	}
	longest := row{bytes.Repeat([]byte{rowNode}, 64), bytes.Repeat([]byte{7}, 64)}
	more := []row{longest, {metaKey("x"), []byte("yes")}, {packKey(7), []byte{0}}, {packKey(8), []byte{1}}}
	for _, rows := range [][]row{rows, more, {{key: packKey(8)}}, nil} {
		if err := k.update(ctx, rows); err != nil {
			t.Fatal(err)
		}
	}
	refs := make([]uint64, maxRows)
	refs[5] = 99
	asked := slices.Clone(hashes)
	asked[5] = pack.Hash{} // which nobody has
	if err := k.pages(ctx, asked, refs); err != nil {
		t.Fatal(err)
	}
	for i, ref := range refs {
		if want := uint64(i + 1); ref != want && i != 5 || i == 5 && ref != 0 {
			t.Fatalf("page %d: ref %d", i, ref)
		}
	}
	for _, r := range more[:3] {
		if v, err := k.get(ctx, r.key); err != nil || !bytes.Equal(v, r.value) {
			t.Errorf("row %x: %x, %v", r.key, v, err)
		}
	}
	if v, err := k.get(ctx, packKey(8)); v != nil || err != nil {
		t.Errorf("a deleted row: %x, %v", v, err)
	}
	n := 0
	err := scanAll(ctx, k, rowPack, func(rows []row) error {
		n += len(rows)
		if r := rows[0]; !bytes.Equal(r.key, packKey(7)) || !bytes.Equal(r.value, []byte{0}) {
			t.Errorf("row %x: %x", r.key, r.value)
		}
		return nil
	})
	if n != 1 || err != nil {
		t.Errorf("%d packs, %v", n, err)
	}
	if inMemory {
		return
	}
	n = 0
	err = scanAll(ctx, k, rowPage, func(rows []row) error { n += len(rows); return nil })
	if n != maxRows || err != nil {
		t.Errorf("%d pages, %v", n, err)
	}
}

// The index may fail at any time, in any way: what is imported is right all the same, the failed one
// is set aside, and the next command has one again.
func TestIndexFailsAtAnyTime(t *testing.T) {
	r := newRand(t)
	base := randomImage(r, 600)
	failures := map[string]func(*keptKeys){
		"killed":  func(k *keptKeys) { _ = k.proc.Process.Kill() },
		"stopped": func(k *keptKeys) { _ = k.proc.Process.Signal(unix.SIGSTOP) },
		"bus":     func(k *keptKeys) { _ = k.proc.Process.Signal(unix.SIGBUS) },
		"deaf":    func(k *keptKeys) { _ = k.in.Close() },
	}
	for name, fail := range failures {
		for _, at := range r.Perm(8)[:fewer(8, 3)] {
			t.Run(fmt.Sprint(name, at), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "store")
				failing := openKept(t, dir)
				mustImport(t, failing, "one", writeSource(t, base.bytes(), nil), nil)
				k := keeperOf(t, failing)
				k.timeout = time.Second
				f := &failingKeys{keyStore: k, at: at, fail: func() { fail(k) }}
				failing.hints.db = f
				later := base.change(r, 40)
				mustImport(t, failing, "two", writeSource(t, later.bytes(), nil), []Run{{4, 40}})
				if err := failing.Remove(context.Background(), "one"); err != nil {
					t.Fatal(err)
				}
				if _, err := failing.GC(context.Background(), GCOptions{}); err != nil {
					t.Fatal(err)
				}
				if err := failing.Close(); err != nil {
					t.Fatal(err)
				}
				if f.failed != (len(damagedDirs(t, dir)) == 1) {
					t.Errorf("failed: %v, set aside: %v", f.failed, damagedDirs(t, dir))
				}
				s := openKept(t, dir)
				m := openImage(t, s, "two")
				sameImage(t, m, later.bytes())
				m.Close()
				if rep := checkClean(t, s, true); rep.NoIndex != "" || rep.IndexKeys == 0 {
					t.Errorf("%+v", rep)
				}
			})
		}
	}
}

func damagedDirs(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, indexDirName+damagedSuffix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// failingKeys is an index that something happens to before a certain call.
type failingKeys struct {
	keyStore
	at     int
	fail   func()
	failed bool
}

func (f *failingKeys) step() {
	if f.at == 0 {
		f.failed = true
		f.fail()
	}
	f.at--
}

func (f *failingKeys) pages(ctx context.Context, hashes []pack.Hash, refs []uint64) error {
	f.step()
	return f.keyStore.pages(ctx, hashes, refs)
}

func (f *failingKeys) get(ctx context.Context, key []byte) ([]byte, error) {
	f.step()
	return f.keyStore.get(ctx, key)
}

func (f *failingKeys) update(ctx context.Context, rows []row) error {
	f.step()
	return f.keyStore.update(ctx, rows)
}

func (f *failingKeys) scan(ctx context.Context, kind byte, after []byte) ([]row, error) {
	f.step()
	return f.keyStore.scan(ctx, kind, after)
}

func (f *failingKeys) close() error {
	f.step()
	return f.keyStore.close()
}

// Who does not want to wait for a keeper that hangs need not.
func TestHangingKeeperIsCancelled(t *testing.T) {
	s := openKept(t, t.TempDir()+"/store")
	k := keeperOf(t, s)
	if err := k.proc.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.hints.db = &failingKeys{keyStore: k, fail: cancel}
	set := func(k keyStore) error { return k.update(ctx, []row{{metaKey("x"), []byte{1}}}) }
	if err := s.hints.do(ctx, set); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if d := damagedDirs(t, s.Dir()); len(d) != 0 {
		t.Errorf("set aside for nothing: %v", d)
	}
}

// Without a keeper that can be started, or a place for an index, a store can be imported into all the
// same.
func TestNoIndexOnDisk(t *testing.T) {
	ctx := context.Background()
	base := randomImage(rand.New(rand.NewPCG(93, 1)), 400)
	keepers := map[string]func() *exec.Cmd{
		"missing": func() *exec.Cmd { return exec.Command("/nonexistent/thaw") },
		"silent":  func() *exec.Cmd { return exec.Command("/bin/true") },
		"other":   func() *exec.Cmd { return exec.Command("/bin/echo", "hello there, I am no keeper") },
		"nowhere": testKeeper,
	}
	for name, keeper := range keepers {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir() + "/store"
			s, err := Open(ctx, dir, OpenOptions{Create: true, Keeper: keeper, Log: testLog(t)})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			s.limits.tailPages = 0
			if name == "nowhere" {
				// A file where the index would be is set aside; one that comes back all the time is not.
				s.hints.dir = "/proc/self/index"
			}
			mustImport(t, s, "one", writeSource(t, base.bytes(), nil), nil)
			_, st := mustImport(t, s, "two", writeSource(t, base.bytes(), nil), nil)
			if st.NewPages != 0 {
				t.Errorf("%d pages were stored twice", st.NewPages)
			}
			if rep := checkClean(t, s, true); rep.NoIndex == "" {
				t.Error("nothing is said of the missing index")
			}
		})
	}
}

// The keeper ends with the process that began it, and the lock stays with it until then.
func TestKeeperHoldsTheLock(t *testing.T) {
	dir := t.TempDir() + "/store"
	s := openKept(t, dir)
	k := keeperOf(t, s)
	// As if this process had died: its descriptors are closed, the keeper has not seen it yet.
	if err := k.proc.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := s.lock.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), dir, OpenOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("opened beside a keeper: %v", err)
	}
	if err := k.proc.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := k.in.Close(); err != nil {
		t.Fatal(err)
	}
	<-k.ended // the end of its input
	if k.end != nil {
		t.Error(k.end)
	}
	next, err := Open(context.Background(), dir, OpenOptions{Keeper: testKeeper})
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil && !strings.Contains(err.Error(), "already closed") {
		t.Error(err)
	}
}
