package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/pack"
)

// KeeperMain is the process that has Badger open for a store: it answers questions (keeperwire.go) on
// stdin until that ends, and returns the exit code. A command that calls it does nothing else. See
// OpenOptions.Keeper.
func KeeperMain() int {
	// A terminal's signals are for the command, which ends this process when it is done.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	// When memory is short the kernel should end this process first. An error does not matter.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	// What Badger needs is little, but it leaves much garbage when it writes.
	debug.SetGCPercent(30)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	k := &keeper{log: log}
	err := serveKeeper(methodsOf(k))
	if err = errors.Join(err, k.Close(0, new(int))); err != nil {
		fmt.Fprintln(os.Stderr, "keeper:", err)
		return 1
	}
	return 0
}

// keeperGrace is how long a keeper whose command has died may take to close the index.
const keeperGrace = 10 * time.Second

// keeperVersion is the answer to Version.
const keeperVersion = "thaw-keeper 4"

// keeperInput is stdin. When that ends this process must end soon, also if Badger hangs.
type keeperInput struct{}

func (keeperInput) Read(b []byte) (int, error) {
	n, err := os.Stdin.Read(b)
	if err != nil {
		time.AfterFunc(keeperGrace, func() { os.Exit(1) })
	}
	return n, err
}

// keeper answers questions: its exported methods are called by keptKeys. There is no
// context, because the store ends this process when it does not want to wait.
type keeper struct {
	log *slog.Logger

	mu sync.Mutex // held for each question
	db keyStore   // nil before Open and after Close; guarded by mu
}

var errNoIndex = errors.New("the keeper has no index open")

// with calls fn with the index.
func (k *keeper) with(fn func(ctx context.Context, db keyStore) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.db == nil {
		return errNoIndex
	}
	return fn(context.Background(), k.db)
}

// Version shows that this process is a keeper.
func (k *keeper) Version(_ int, version *string) error {
	*version = keeperVersion
	return nil
}

// Open opens the index at a place.
func (k *keeper) Open(at indexPlace, _ *int) (err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.db, err = openBadger(at, k.log)
	return err
}

// Pages is keyStore.pages. keys are the keys of pages without their first byte, refs have 8 bytes each.
func (k *keeper) Pages(keys []byte, refs *[]byte) error {
	return k.with(func(ctx context.Context, db keyStore) error {
		hashes := make([]pack.Hash, len(keys)/pageKeySize)
		for i := range hashes {
			copy(hashes[i][:], keys[i*pageKeySize:][:pageKeySize])
		}
		found := make([]uint64, len(hashes))
		err := db.pages(ctx, hashes, found)
		for _, ref := range found {
			*refs = binary.LittleEndian.AppendUint64(*refs, ref)
		}
		return err
	})
}

// Get is keyStore.get.
func (k *keeper) Get(key []byte, value *[]byte) error {
	return k.with(func(ctx context.Context, db keyStore) (err error) {
		*value, err = db.get(ctx, key)
		return err
	})
}

// Update is keyStore.update.
func (k *keeper) Update(rows []string, _ *int) error {
	return k.with(func(ctx context.Context, db keyStore) error { return db.update(ctx, rowsOf(rows)) })
}

// stringsOf returns keys and values of rows in turn. Package gob takes a quarter of the time for strings
// that it takes for structs.
func stringsOf(rows []row) []string {
	s := make([]string, 0, 2*len(rows))
	for _, r := range rows {
		s = append(s, string(r.key), string(r.value))
	}
	return s
}

// rowsOf is the inverse of stringsOf.
func rowsOf(s []string) []row {
	rows := make([]row, len(s)/2)
	for i := range rows {
		rows[i] = row{[]byte(s[2*i]), []byte(s[2*i+1])}
	}
	return rows
}

// Scan is keyStore.scan of the kind from[0], after the key from[1:] if that is not empty.
func (k *keeper) Scan(from []byte, rows *[]string) error {
	return k.with(func(ctx context.Context, db keyStore) error {
		if len(from) == 0 {
			return errors.New("a scan without a kind")
		}
		found, err := db.scan(ctx, from[0], from[1:])
		*rows = stringsOf(found)
		return err
	})
}

// Close closes the index, if one is open.
func (k *keeper) Close(int, *int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.db == nil {
		return nil
	}
	db := k.db
	k.db = nil
	return db.close()
}
