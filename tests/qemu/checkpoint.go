package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	qmp "github.com/thawfs/thaw/wss/qemu"
)

// Save stops the machine and writes it as a checkpoint directory: `memory`, `state`, `info.json`. The
// directory must not exist. The machine stays stopped; Continue continues it.
func (g *Guest) Save(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("qemu: save: %w", err)
	}
	if err := g.QMP.Run(ctx, "stop", nil, nil); err != nil {
		return err
	}
	if err := ignoreShared(ctx, g.QMP); err != nil {
		return err
	}
	state := filepath.Join(dir, "state")
	if err := g.MigrateTo(ctx, "exec:cat > '"+state+"'"); err != nil {
		return err
	}
	if err := CopySparse(filepath.Join(dir, "memory"), g.memory); err != nil {
		return fmt.Errorf("qemu: save: %w", err)
	}
	info, err := json.Marshal(map[string]any{
		"vmm": "qemu", "memory_bytes": g.cfg.MemoryBytes, "guest": "linux under tcg"})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "info.json"), append(info, '\n'), 0o644)
}

// MigrateTo sends the machine's migration stream somewhere, and waits until all of it was sent.
func (g *Guest) MigrateTo(ctx context.Context, uri string) error {
	if err := g.QMP.Run(ctx, "migrate", map[string]any{"uri": uri}, nil); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		var m struct{ Status, ErrorDesc string }
		var raw map[string]any
		if err := g.QMP.Run(ctx, "query-migrate", nil, &raw); err != nil {
			return false, err
		}
		m.Status, _ = raw["status"].(string)
		m.ErrorDesc, _ = raw["error-desc"].(string)
		if m.Status == "failed" || m.Status == "cancelled" {
			return false, fmt.Errorf("qemu: migrate: %s %s", m.Status, m.ErrorDesc)
		}
		return m.Status == "completed", nil
	})
}

// Continue continues a stopped, saved or restored machine.
func (g *Guest) Continue(ctx context.Context) error { return g.QMP.Run(ctx, "cont", nil, nil) }

// RestoreOptions say how QEMU opens the memory file.
type RestoreOptions struct {
	// ReadOnly opens it O_RDONLY (QEMU 8.2 and later); otherwise QEMU insists on O_RDWR, and
	// maps it private all the same.
	ReadOnly bool
}

// Restore starts QEMU on a saved machine, from any file that has its memory. The machine is stopped
// until Continue is called. Opening the file is the request to restore, so a caller measures times from
// here.
func Restore(ctx context.Context, c Config, memory, state string, o RestoreOptions) (*Guest, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	g, err := start(ctx, c, memoryBackend(c, memory, o, true), memory, "-incoming", "defer")
	if err != nil {
		return nil, err
	}
	if err := g.load(ctx, state); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

func (g *Guest) load(ctx context.Context, state string) error {
	if err := ignoreShared(ctx, g.QMP); err != nil {
		return err
	}
	return g.receive(ctx, state)
}

// receive takes a migration stream out of a file.
func (g *Guest) receive(ctx context.Context, state string) error {
	args := map[string]any{"uri": "exec:cat '" + state + "'"}
	if err := g.QMP.Run(ctx, "migrate-incoming", args, nil); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		s, err := g.QMP.Status(ctx)
		return s != "inmigrate", err
	})
}

// ignoreShared keeps RAM out of the migration stream.
func ignoreShared(ctx context.Context, q *qmp.QMP) error {
	return q.Run(ctx, "migrate-set-capabilities", map[string]any{
		"capabilities": []any{map[string]any{"capability": "x-ignore-shared", "state": true}},
	}, nil)
}

// CopySparse copies a file and leaves holes where 64 KiB are zero.
func CopySparse(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	size, err := copySparse(out, in)
	if err == nil {
		err = out.Truncate(size)
	}
	return errors.Join(err, out.Close())
}

func copySparse(out io.WriterAt, in io.Reader) (int64, error) {
	var zero [64 << 10]byte
	buf := make([]byte, len(zero))
	var off int64
	for {
		n, err := io.ReadFull(in, buf)
		if n > 0 && string(buf[:n]) != string(zero[:n]) {
			if _, werr := out.WriteAt(buf[:n], off); werr != nil {
				return off, werr
			}
		}
		off += int64(n)
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return off, nil
		default:
			return off, err
		}
	}
}
