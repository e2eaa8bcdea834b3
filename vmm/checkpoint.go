package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Names of the files of a checkpoint directory.
const (
	memoryFile = "memory"
	stateFile  = "state"
	infoFile   = "info.json"
)

// InfoFormat is the format that info.json names.
const InfoFormat = "thaw-vm-1"

// Info is info.json: what a reader may want to know of a checkpoint without being a VMM. Restoring
// does not read it.
type Info struct {
	Format      string    `json:"format"`
	Created     time.Time `json:"created"`
	MemoryBytes uint64    `json:"memory_bytes"` // size of the image
	PageSize    uint64    `json:"page_size"`
	RAMBytes    uint64    `json:"ram_bytes"` // of it, without the holes of the address space
	Regions     []Region  `json:"regions"`
	VCPUs       int       `json:"vcpus"`
	Parent      string    `json:"parent,omitempty"` // directory that the machine was restored from
	Guest       GuestInfo `json:"guest"`
}

// GuestInfo says what the guest was doing.
type GuestInfo struct {
	Program string            `json:"program"`
	Args    map[string]string `json:"args,omitempty"`
	Units   string            `json:"units"`
	Done    uint64            `json:"done"`  // units since it was first started
	Ready   bool              `json:"ready"` // it had filled its memory
}

// CheckpointStats says what a checkpoint cost.
type CheckpointStats struct {
	Dir          string  `json:"dir"`
	MemoryBytes  uint64  `json:"memory_bytes"`
	WrittenBytes uint64  `json:"written_bytes"` // of memory; the rest are holes
	Seconds      float64 `json:"seconds"`
	PauseSeconds float64 `json:"pause_seconds"` // how long the guest stood still
}

// Checkpoint writes the machine into a new directory, which appears complete or not at all. A
// running machine is paused for it and goes on afterwards, also when writing fails.
func (m *Machine) Checkpoint(ctx context.Context, dir string) (CheckpointStats, error) {
	return m.checkpoint(ctx, dir, false)
}

// checkpoint writes, and with stop ends the machine when all is written: nothing that the guest
// does afterwards is lost.
func (m *Machine) checkpoint(ctx context.Context, dir string, stop bool) (CheckpointStats, error) {
	m.control.Lock()
	defer m.control.Unlock()
	begin := time.Now()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return CheckpointStats{}, err
	}
	m.mu.Lock()
	running := m.state == StateRunning
	m.mu.Unlock()
	if err := m.pause(); err != nil {
		return CheckpointStats{}, err
	}
	stats, err := m.write(ctx, dir)
	switch {
	case stop && err == nil:
		m.end(ErrStopped)
	case running:
		// It may have been stopped meanwhile; the checkpoint is none the worse for that.
		if e := m.resume(); !errors.Is(e, ErrEnded) {
			err = errors.Join(err, e)
		}
	}
	stats.PauseSeconds = time.Since(begin).Seconds()
	if err != nil {
		return CheckpointStats{}, fmt.Errorf("checkpoint to %s: %w", dir, err)
	}
	stats.Seconds = time.Since(begin).Seconds()
	m.log.Info("checkpoint written", "dir", dir, "memory", stats.MemoryBytes,
		"written", stats.WrittenBytes, "pause_seconds", stats.PauseSeconds)
	return stats, nil
}

// write writes a paused machine.
func (m *Machine) write(ctx context.Context, dir string) (stats CheckpointStats, err error) {
	if _, err := os.Lstat(dir); err == nil {
		return stats, &fs.PathError{Op: "create", Path: dir, Err: fs.ErrExist}
	}
	s, err := m.save()
	if err != nil {
		return stats, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".tmp-")
	if err != nil {
		return stats, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return stats, err
	}
	if stats.WrittenBytes, err = m.writeMemory(ctx, filepath.Join(tmp, memoryFile)); err != nil {
		return stats, err
	}
	if err := m.writeState(&s, filepath.Join(tmp, stateFile)); err != nil {
		return stats, err
	}
	if err := m.writeInfo(&s, filepath.Join(tmp, infoFile)); err != nil {
		return stats, err
	}
	if err := syncDir(tmp); err != nil {
		return stats, err
	}
	// NOREPLACE: an empty directory of that name that appeared meanwhile is somebody's too.
	err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE)
	if err != nil {
		return stats, &os.LinkError{Op: "rename", Old: tmp, New: dir, Err: err}
	}
	stats.Dir, stats.MemoryBytes = dir, m.mem.size
	return stats, syncDir(filepath.Dir(dir))
}

func (m *Machine) writeMemory(ctx context.Context, path string) (written uint64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return 0, err
	}
	written, err = m.mem.copyTo(ctx, f, m.tracker)
	if err == nil {
		err = f.Sync()
	}
	return written, errors.Join(err, f.Close())
}

func (m *Machine) writeState(s *saved, path string) error {
	sections, err := s.sections()
	if err != nil {
		return err
	}
	b, err := encodeState(sections)
	if err != nil {
		return err
	}
	// What cannot be read back is not worth a checkpoint.
	if list, err := decodeState(b); err != nil {
		return err
	} else if _, err := decodeSaved(list); err != nil {
		return err
	}
	return writeFile(path, b)
}

func (m *Machine) writeInfo(s *saved, path string) error {
	info := Info{
		Format: InfoFormat, Created: time.Now().UTC().Truncate(time.Second), MemoryBytes: m.mem.size,
		PageSize: pageSize, RAMBytes: ramBytes(s.facts.Regions), Regions: s.facts.Regions,
		VCPUs: s.facts.VCPUs, Guest: m.guestInfo(s.ports),
	}
	if m.mem.private {
		info.Parent = filepath.Dir(m.mem.file.Name())
	}
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(b, '\n'))
}

func (m *Machine) guestInfo(p portState) GuestInfo {
	return GuestInfo{Program: m.facts.Guest.Program, Args: m.facts.Guest.Args, Units: m.program.Units,
		Done: p.Done, Ready: p.Ready != 0}
}

// writeFile writes a new file and waits until it is on disk.
func writeFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
