package index

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/index/seal"
)

// testKey is the key of the sealed stores of tests.
var testKey = sealKey(1)

func sealKey(n byte) seal.Key {
	k, err := seal.ParseKey(bytes.Repeat([]byte{n}, seal.KeySize))
	if err != nil {
		panic(err)
	}
	return k
}

// givenKey is where a key comes from.
func givenKey(k seal.Key) KeySource {
	return func(context.Context) (*seal.Key, error) { return &k, nil }
}

// keysFor is the key of a store if that is sealed, or if all new ones are to be.
func keysFor(dir string) KeySource {
	if h, err := SealOf(dir); err == nil && h != nil || os.Getenv("THAW_TEST_SEALED") != "" && !IsStore(dir) {
		return givenKey(testKey)
	}
	return nil
}

// makeSealed makes an empty sealed store.
func makeSealed(t testing.TB, dir string) {
	t.Helper()
	s, err := Open(t.Context(), dir, OpenOptions{Create: true, Keys: givenKey(testKey), Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// filesIn returns the files of a directory by their paths.
func filesIn(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		all[strings.TrimPrefix(path, dir)], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Without its key a sealed store is not opened, in no way, and nothing of it changes.
func TestSealedNeedsItsKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	makeSealed(t, dir)
	s := openTest(t, dir, nil)
	if !s.Sealed() {
		t.Error("it is not sealed")
	}
	r := rand.New(rand.NewPCG(3, 1))
	img := randomImage(r, 600)
	mustImport(t, s, "web", writeSource(t, img.bytes(), nil), []Run{{10, 50}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := filesIn(t, dir)
	for what, k := range map[string]struct {
		keys KeySource
		want error
	}{
		"none":    {nil, ErrNoKey},
		"nothing": {func(context.Context) (*seal.Key, error) { return nil, nil }, ErrNoKey},
		"another": {givenKey(sealKey(2)), ErrWrongKey},
		"failure": {func(context.Context) (*seal.Key, error) { return nil, io.EOF }, io.EOF},
	} {
		for _, o := range []OpenOptions{{}, {ReadOnly: true}, {Create: true}} {
			o.Keys = k.keys
			if s, err := Open(t.Context(), dir, o); !errors.Is(err, k.want) || s != nil {
				t.Errorf("%s, %+v: %v", what, o, err)
			}
		}
		if _, err := OpenVault(t.Context(), dir, k.keys); !errors.Is(err, k.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if d := cmp.Diff(before, filesIn(t, dir)); d != "" {
		t.Errorf("the store changed: %s", d)
	}
	for _, readOnly := range []bool{true, false} {
		o := OpenOptions{ReadOnly: readOnly, MustSeal: true, Keys: givenKey(testKey)}
		s, err := Open(t.Context(), dir, o)
		if err != nil {
			t.Fatal(err)
		}
		m := openImage(t, s, "web")
		sameImage(t, m, img.bytes())
		sameWorkingSet(t, m, img.bytes(), []Run{{10, 50}})
		m.Close()
		checkSealed(t, s)
	}
}

// checkSealed checks a store and closes it.
func checkSealed(t *testing.T, s *Store) {
	t.Helper()
	report, err := s.Check(t.Context(), CheckOptions{ReadData: true})
	if err != nil || len(report.Problems) > 0 {
		t.Errorf("%+v, %v", report.Problems, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A store that is not sealed stays as it ever was, and is not taken for a sealed one.
func TestNotSealed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, err := Open(t.Context(), dir, OpenOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, storeFileName))
	if err != nil {
		t.Fatal(err)
	}
	var f storeFile
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{
  "magic": "thaw-store",
  "version": 1,
  "profile": "default",
  "hash_key": "%s",
  "hash_key_sum": "%s",
  "created": "%s"
}
`, f.HashKey, f.HashKeySum, f.Created.Format("2006-01-02T15:04:05Z"))
	if d := cmp.Diff(want, string(text)); d != "" {
		t.Error(d)
	}
	if s, err = Open(t.Context(), dir, OpenOptions{Keys: givenKey(testKey)}); err != nil {
		t.Fatal(err) // a key from the environment is for other stores
	}
	if s.Sealed() {
		t.Error("it is sealed")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), dir, OpenOptions{Keys: givenKey(testKey), MustSeal: true})
	if !errors.Is(err, ErrNotSealed) {
		t.Error(err)
	}
	err = ChangeSeal(t.Context(), dir, 0, func(h seal.Header) (seal.Header, error) { return h, nil })
	if !errors.Is(err, ErrNotSealed) {
		t.Error(err)
	}
}

// A program that does not know sealed stores says so: theirs is another version.
func TestSealedVersion(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	makeSealed(t, dir)
	path := filepath.Join(dir, storeFileName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(`"version": 2,`)) || bytes.Contains(text, []byte("hash_key")) {
		t.Errorf("%s", text)
	}
	for old, next := range map[string]string{
		`"version": 2,`:  `"version": 1,`,
		`"seal": {`:      `"seel": {`,
		`"wrapped": "`:   `"wrapped": "00`,
		`aes-256-gcm`:    `aes-256-xyz`,
		`"salt": "`:      `"salt": "x`,
		`"version": 2, `: `"version": 2, `,
	} {
		bad := bytes.Replace(text, []byte(old), []byte(next), 1)
		if bytes.Equal(bad, text) {
			continue
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		var ce *CorruptError
		if _, err := Open(t.Context(), dir, OpenOptions{Keys: givenKey(testKey)}); !errors.As(err, &ce) {
			t.Errorf("%s: %v", next, err)
		}
	}
}

// secrets is what must not show: of a store that showsNothing has filled.
func secrets(t *testing.T, s *Store, images map[string]testImage) map[string][]byte {
	t.Helper()
	out := map[string][]byte{
		"hash key":        s.key[:],
		"hash key, text":  []byte(hex.EncodeToString(s.key[:])),
		"name":            []byte("accounting-server"),
		"other name":      []byte("webserver"),
		"file":            []byte("state of the machine"),
		"working set":     []byte("a set of pages"),
		"info":            []byte("a-fact-of-the-guest"),
		"manifest":        []byte("memory_bytes"),
		"pack of a root":  []byte("thawpack"),
		"footer of packs": []byte("thawfoot"),
	}
	hasher := pack.NewHasher(s.key)
	plain := pack.NewHasher(pack.HashKey{})
	page := make([]byte, PageSize)
	n := 0
	for _, img := range images {
		for _, seed := range img {
			if seed == 0 || n == 40 {
				continue
			}
			n++
			fillPage(page, seed)
			h, p := hasher.Sum(page), plain.Sum(page)
			out[fmt.Sprintf("page %d", n)] = bytes.Clone(page[64:80])
			out[fmt.Sprintf("hash of page %d", n)] = h[:pageKeySize]
			out[fmt.Sprintf("hash of page %d without a key", n)] = p[:8]
		}
	}
	return out
}

// fillWithSecrets makes a store of all that there is, with an index on disk.
func fillWithSecrets(t *testing.T, dir string) (map[string]testImage, *Store) {
	t.Helper()
	s := openTest(t, dir, nil)
	s.limits = limits{packPages: 300, freshPages: 200, tailPages: 100, gatherPages: 10}
	r := rand.New(rand.NewPCG(8, 1))
	one := randomImage(r, 2500)
	images := map[string]testImage{"accounting-server": one, "webserver": one.evolve(r, 0.3)}
	for _, name := range sortedKeys(images) {
		mustImport(t, s, name, writeSource(t, images[name].bytes(), map[string][]byte{
			"state":       bytes.Repeat([]byte("state of the machine "), 20000),
			"working-set": []byte("a set of pages"),
			"info.json":   []byte(`{"guest": "a-fact-of-the-guest"}`),
		}), []Run{{10, 300}})
	}
	if _, err := s.Repack(t.Context(), RepackOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(t.Context(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	return images, s
}

// Of pages, hashes, names and files nothing can be found in the files of a sealed store, nor in their names.
// In those of another store it can.
func TestSealedShowsNothing(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed=%v", sealed), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			if sealed {
				makeSealed(t, dir)
			} else if os.Getenv("THAW_TEST_SEALED") != "" {
				t.Skip("all stores are sealed")
			}
			images, s := fillWithSecrets(t, dir)
			hidden := secrets(t, s, images)
			for name, img := range images {
				m := openImage(t, s, name)
				sameImage(t, m, img.bytes())
				m.Close()
			}
			checkSealed(t, s)
			files := filesIn(t, dir)
			if !slices.ContainsFunc(slices.Collect(maps.Keys(files)), func(p string) bool {
				return strings.HasPrefix(p, "/"+indexDirName+"/") && strings.HasSuffix(p, ".sst")
			}) {
				t.Fatal("there is no index on disk")
			}
			found := map[string]bool{}
			for path, b := range files {
				for what, secret := range hidden {
					if bytes.Contains(b, secret) || strings.Contains(path, string(secret)) {
						found[what] = true
						if sealed {
							t.Errorf("%s shows the %s", path, what)
						}
					}
				}
			}
			if !sealed && len(found) < 20 {
				t.Errorf("of %d secrets only %d are found: the search is no good", len(hidden), len(found))
			}
		})
	}
}

// Whatever the files of a sealed store are replaced by, no wrong byte is read.
func TestSealedFilesMoved(t *testing.T) {
	sound, other := filepath.Join(t.TempDir(), "store"), filepath.Join(t.TempDir(), "store")
	makeSealed(t, sound)
	images := damageStore(t, sound)
	makeSealed(t, other) // the same names, pages and user's key; another data key
	damageStore(t, other)
	files := blobFiles(t, sound)
	r := newRand(t)
	replaced := 0
	for i, file := range files {
		n := r.IntN(len(files) - 1)
		if n >= i {
			n++ // another one
		}
		from := []string{files[n]} // of the same store
		if rel, err := filepath.Rel(sound, file); err == nil {
			from = append(from, filepath.Join(other, rel))
		}
		for _, src := range from {
			b, err := os.ReadFile(src)
			if errors.Is(err, fs.ErrNotExist) {
				continue // names of roots are other ones
			}
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "store")
			copyTree(t, sound, dir)
			target := filepath.Join(dir, strings.TrimPrefix(file, sound))
			if err := os.WriteFile(target, b, 0o600); err != nil {
				t.Fatal(err)
			}
			replaced++
			bad, report := readDamaged(t, dir, images)
			if bad == 0 && len(report.Problems) == 0 {
				t.Errorf("%s in place of %s is not noticed", src, file)
			}
		}
	}
	if replaced < len(files) {
		t.Errorf("%d files were replaced", replaced)
	}
}

// Damage of one place in a pack costs the pages that lie there, also near the end, which is read to open it.
func TestSealedDamageIsLocal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	makeSealed(t, dir)
	images := damageStore(t, dir)
	file := filepath.Join(dir, "packs", "0000000001.0.pack")
	sound, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{len(sound) / 3, len(sound) - 60_000} {
		b := bytes.Clone(sound)
		b[at] ^= 0x40
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		bad, report := readDamaged(t, dir, images)
		// There are some units in a chunk, and both checkpoints may have their pages.
		if bad == 0 || bad > 100 || report.OK() {
			t.Errorf("byte %d of %d: %d pages are lost, a check says %v", at, len(b), bad, report.OK())
		}
	}
}

// Keys of a store change, and nothing else of it. Two writers do not change them at once.
func TestChangeSeal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	makeSealed(t, dir)
	damageStore(t, dir)
	before := filesIn(t, dir)
	next := sealKey(9)
	add := func(h seal.Header) (seal.Header, error) { return h.Add(testKey, next) }
	if err := ChangeSeal(t.Context(), dir, 0, add); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), dir, OpenOptions{Keys: givenKey(next)})
	if err != nil {
		t.Fatal(err)
	}
	if err := ChangeSeal(t.Context(), dir, 0, add); !errors.Is(err, ErrLocked) {
		t.Errorf("beside a writer: %v", err)
	}
	checkSealed(t, s)
	remove := func(h seal.Header) (seal.Header, error) { return h.Remove(testKey.ID()) }
	if err := ChangeSeal(t.Context(), dir, 0, remove); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenVault(t.Context(), dir, givenKey(testKey)); !errors.Is(err, ErrWrongKey) {
		t.Error(err)
	}
	if err := ChangeSeal(t.Context(), dir, 0, remove); !errors.Is(err, ErrWrongKey) {
		t.Error(err)
	}
	h, err := SealOf(dir)
	if err != nil || len(h.Keys) != 1 || h.IDs() != next.ID() {
		t.Errorf("%+v, %v", h, err)
	}
	after := filesIn(t, dir)
	for path, b := range before {
		if strings.HasPrefix(path, "/"+packsDirName) && !bytes.Equal(after[path], b) {
			t.Errorf("%s changed", path)
		}
	}
}

// An index that was encrypted for another store, or not at all, is replaced.
func TestSealedIndexOfAnotherStore(t *testing.T) {
	plain, dir := filepath.Join(t.TempDir(), "store"), filepath.Join(t.TempDir(), "store")
	_, s := fillWithSecrets(t, plain)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	makeSealed(t, dir)
	images, s := fillWithSecrets(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, indexDirName)); err != nil {
		t.Fatal(err)
	}
	copyTree(t, filepath.Join(plain, indexDirName), filepath.Join(dir, indexDirName))
	// A Badger that does not open its files leaves goroutines behind: in a keeper they end with that.
	s, err := Open(t.Context(), dir, OpenOptions{Keeper: testKeeper, Keys: keysFor(dir), Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	s.limits.tailPages = 100
	_, stats := mustImport(t, s, "again", writeSource(t, images["webserver"].bytes(), nil), nil)
	if stats.NewPages > 0 {
		t.Errorf("%d pages are not known", stats.NewPages)
	}
	checkSealed(t, s)
}
