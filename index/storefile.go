package index

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/index/seal"
)

// Names in the directory of a store.
const (
	storeFileName = "thaw-store.json"
	indexDirName  = "index"
	packsDirName  = "packs"
	rootsDirName  = "checkpoints"
)

const (
	storeMagic   = "thaw-store"
	storeVersion = 1
	// sealedVersion is that of sealed stores, which older programs must not take for damaged.
	sealedVersion = 2
)

// storeFile is the content of thaw-store.json: what makes a directory a store. It is written once, but for
// the keys of a sealed store.
type storeFile struct {
	Magic   string  `json:"magic"`
	Version int     `json:"version"`
	Profile Profile `json:"profile"`
	HashKey string  `json:"hash_key,omitempty"` // hex; page hashes are keyed with it. Not of a sealed store
	// HashKeySum tells that the key is what was written; older stores have none. A page would not be
	// known by any other key: all of them would be taken for damaged, and what is imported then, too,
	// once the right key is back.
	HashKeySum string    `json:"hash_key_sum,omitempty"`
	Created    time.Time `json:"created"`
	// Seal has the keys of a sealed store.
	Seal *seal.Header `json:"seal,omitempty"`
}

// write writes the file durably.
func (f *storeFile) write(path string) error {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return writeFileDurably(path, append(b, '\n'))
}

// sumOfKey is the CRC-32C of a hash key.
func sumOfKey(key pack.HashKey) string {
	return fmt.Sprintf("%08x", crc32.Checksum(key[:], crc32.MakeTable(crc32.Castagnoli)))
}

// key returns the hash key.
func (f *storeFile) key() (pack.HashKey, error) {
	b, err := hex.DecodeString(f.HashKey)
	if err != nil || len(b) != len(pack.HashKey{}) {
		return pack.HashKey{}, errors.New("hash key is damaged")
	}
	key := pack.HashKey(b)
	if f.HashKeySum != "" && f.HashKeySum != sumOfKey(key) {
		return pack.HashKey{}, errors.New("hash key does not match its checksum: " +
			"put the file back from a copy; the packs are not damaged")
	}
	return key, nil
}

// readStoreFile says what store dir holds: ErrNotStore if none, *VersionError if one of another
// format.
func readStoreFile(dir string) (*storeFile, error) {
	path := filepath.Join(dir, storeFileName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNotStore)
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	// The version is checked first: in another format all else may be different.
	var f storeFile
	var head struct {
		Magic   string `json:"magic"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil || head.Magic != storeMagic {
		return nil, fmt.Errorf("%s: %w: %s is damaged, or not thaw's",
			dir, ErrNotStore, storeFileName)
	}
	if head.Version != storeVersion && head.Version != sealedVersion {
		return nil, &VersionError{Path: dir, Got: head.Version, Want: sealedVersion}
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, &CorruptError{Pack: storeFileName, What: "content", Err: err}
	}
	if f.Version == sealedVersion {
		if f.Seal == nil {
			return nil, &CorruptError{Pack: storeFileName, What: "seal", Err: errors.New("it is missing")}
		}
		return &f, nil
	}
	f.Seal = nil
	if _, err := f.key(); err != nil {
		return nil, &CorruptError{Pack: storeFileName, What: "hash_key", Err: err}
	}
	return &f, nil
}

// createStore makes a store in a missing or empty directory; with among also beside other files. A store
// that is there stays as it is, and so does one that another process is just making, which holds write.lock
// then. With a key it is sealed.
func createStore(ctx context.Context, dir string, p Profile, keys KeySource, wait time.Duration,
	among bool) error {
	if IsStore(dir) {
		return nil
	}
	key, err := keys.get(ctx)
	if err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	if err := makeDirectory(dir); err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	if err := creatable(dir, among); err != nil {
		if IsStore(dir) {
			return nil // it is one by now
		}
		return fmt.Errorf("create store: %w", err)
	}
	lock, err := lockWriter(ctx, dir, wait, YieldNone)
	if IsStore(dir) {
		// Another process made it meanwhile, and may be at work in it.
		if err == nil {
			err = lock.Close()
		}
		return ignoreLocked(err)
	}
	if err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	defer lock.Close()
	if err := fillStore(dir, p, key); err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	return nil
}

// ignoreLocked drops ErrLocked, where another process may have the lock.
func ignoreLocked(err error) error {
	if errors.Is(err, ErrLocked) {
		return nil
	}
	return err
}

// IsStore says whether a directory is a store, sound or not.
func IsStore(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, storeFileName))
	return err == nil
}

// makeDirectory is MkdirAll that makes each directory durable in its parent, also one that exists
// already: the process that made it may have died before it was durable.
func makeDirectory(dir string) error {
	dir = filepath.Clean(dir)
	parent := filepath.Dir(dir)
	if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		if err := makeDirectory(parent); err != nil {
			return err
		}
	}
	made := os.Mkdir(dir, 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return made
	}
	err := blob.SyncDir(parent)
	if made != nil && errors.Is(err, fs.ErrPermission) {
		return nil // a parent that may not be read, of a directory that somebody else has made
	}
	return err
}

// creatable says whether a store may be made in a directory: it is empty, but for what an interrupted
// creation leaves. With among other files may be there, if none has a name that a store uses.
func creatable(dir string, among bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case serverLockName, writeLockName, wantLockName, storeFileName, storeFileName + ".tmp":
		case packsDirName, rootsDirName:
			// Made, and not yet used.
			if inside, err := os.ReadDir(filepath.Join(dir, e.Name())); err != nil || among && len(inside) > 0 {
				return fmt.Errorf("%s: %w: what is in %s is not of a store", dir, ErrNotStore, e.Name())
			}
		case indexDirName:
			return fmt.Errorf("%s: %w, and has %s, which a store would use", dir, ErrNotStore, e.Name())
		default:
			if !among {
				return fmt.Errorf("%s: %w: %w", dir, ErrNotStore, ErrNotEmpty)
			}
		}
	}
	return nil
}

// fillStore makes a directory a store. The file that says so comes last. A directory that somebody else has
// made is for its owner alone from then on.
func fillStore(dir string, p Profile, seals *seal.Key) error {
	if err := private(dir); err != nil {
		return err
	}
	for _, sub := range []string{packsDirName, rootsDirName} {
		path := filepath.Join(dir, sub)
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := blob.GiveTo(dir, path); err != nil {
			return err
		}
	}
	f := storeFile{
		Magic: storeMagic, Version: storeVersion, Profile: p, Created: time.Now().UTC().Truncate(time.Second),
	}
	if seals != nil {
		h, _ := seal.New(*seals)
		f.Version, f.Seal = sealedVersion, &h
	} else {
		// The key is secret: with it one could make pages that have the hashes of others.
		var key pack.HashKey
		if _, err := rand.Read(key[:]); err != nil {
			return err
		}
		f.HashKey, f.HashKeySum = hex.EncodeToString(key[:]), sumOfKey(key)
	}
	return f.write(filepath.Join(dir, storeFileName))
}

// private takes a directory's permissions away from all but its owner. One who may write to a directory that
// is not his own may not do that; then nobody but him can read what he makes in it.
func private(dir string) error {
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm()&0o077 == 0 {
		return err
	}
	if err := os.Chmod(dir, st.Mode()&^0o077); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// writeFileDurably writes a file, which after a crash either is complete or does not exist.
func writeFileDurably(path string, b []byte) error {
	dir, tmp := filepath.Dir(path), path+".tmp"
	_ = os.Remove(tmp) // that of an interrupted attempt
	err := writeNew(tmp, func(f *os.File) error {
		if err := blob.GiveTo(dir, tmp); err != nil {
			return err
		}
		_, err := f.Write(b)
		return err
	})
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return blob.SyncDir(dir)
}
