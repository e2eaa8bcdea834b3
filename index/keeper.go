package index

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// KeeperMain is the process that has Badger open for a store: it answers questions on stdin until that
// ends, and returns the exit code. A command that calls it does nothing else. See OpenOptions.Keeper.
func KeeperMain() int {
	// A terminal's signals are for the command, which ends this process when it is done.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	// When memory is short the kernel should end this process first. An error does not matter.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if err := keep(os.Stdin, os.Stdout, log); err != nil {
		fmt.Fprintln(os.Stderr, "keeper:", err)
		return 1
	}
	return 0
}

// keeperGrace is how long a keeper whose command has died may take to close the index.
const keeperGrace = 10 * time.Second

// question is a frame from the store.
type question struct {
	kind    byte
	content []byte
}

// keep answers questions until there are no more.
func keep(in io.Reader, out io.Writer, log *slog.Logger) (err error) {
	if err := writeFrame(out, keepHello, []byte(keeperHello)); err != nil {
		return err
	}
	// The end of the input must be noticed even while Badger hangs.
	questions := make(chan question)
	go func() {
		defer close(questions)
		for in := bufio.NewReader(in); ; {
			kind, content, err := readFrame(in)
			if err != nil {
				time.AfterFunc(keeperGrace, func() { os.Exit(1) })
				return
			}
			questions <- question{kind, content}
		}
	}()
	k := &keeper{log: log}
	defer func() {
		if k.db != nil {
			err = errors.Join(err, k.db.close())
		}
	}()
	for q := range questions {
		kind, answer := byte(keepDone), []byte(nil)
		answer, err := k.answer(q)
		if err != nil {
			kind, answer = keepFailed, []byte(cut(err.Error()))
		}
		if err := writeFrame(out, kind, answer); err != nil {
			return err
		}
		if q.kind == keepClose {
			return nil
		}
	}
	return nil
}

// keeper answers questions.
type keeper struct {
	log *slog.Logger
	db  *badgerKeys // nil before keepOpen and after keepClose
}

func (k *keeper) answer(q question) ([]byte, error) {
	ctx := context.Background() // the parent ends this process when it does not want to wait
	if k.db == nil {
		if q.kind != keepOpen {
			return nil, fmt.Errorf("%w: no index is open", errFrame)
		}
		var err error
		k.db, err = openBadger(string(q.content), k.log)
		return nil, err
	}
	switch q.kind {
	case keepPages:
		hashes, err := parsePageKeys(q.content)
		if err != nil {
			return nil, err
		}
		refs := make([]uint64, len(hashes))
		if err := k.db.pages(ctx, hashes, refs); err != nil {
			return nil, err
		}
		return appendPageRefs(nil, refs), nil
	case keepGet:
		v, ok, err := k.db.get(ctx, q.content)
		if err != nil || !ok {
			return nil, err
		}
		return appendRow(nil, row{q.content, v})
	case keepUpdate:
		rows, err := parseRows(q.content)
		if err != nil {
			return nil, err
		}
		return nil, k.db.update(ctx, rows)
	case keepScan:
		if len(q.content) == 0 {
			return nil, fmt.Errorf("%w: a scan without a kind", errFrame)
		}
		var after []byte
		if len(q.content) > 1 {
			after = q.content[1:]
		}
		rows, err := k.db.scan(ctx, q.content[0], after)
		if err != nil {
			return nil, err
		}
		return appendRows(nil, rows)
	case keepClose:
		db := k.db
		k.db = nil
		return nil, db.close()
	}
	return nil, fmt.Errorf("%w: question %q", errFrame, q.kind)
}

// cut bounds a text of an error.
func cut(s string) string { return s[:min(len(s), 2000)] }
