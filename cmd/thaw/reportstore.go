package main

import (
	"context"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/index"
)

// storeSummary is what a report says of a store.
type storeSummary struct {
	FreeBytes   uint64              `json:"free_bytes"` // of its file system
	Files       map[string]fileSums `json:"files"`      // by directory below the store
	Checkpoints []checkpointSummary `json:"checkpoints"`
}

// fileSums are the files of a directory.
type fileSums struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// checkpointSummary is what a report says of a checkpoint: nothing that its VMM or its user wrote.
type checkpointSummary struct {
	Name         string       `json:"name"`
	Created      time.Time    `json:"created"`
	Generation   uint32       `json:"generation"`
	MemoryBytes  int64        `json:"memory_bytes"`
	DataPages    uint64       `json:"data_pages"`
	StoredBytes  int64        `json:"stored_bytes"`
	SegmentBytes int64        `json:"segment_bytes"`
	SetPages     uint64       `json:"working_set_pages"`
	Layout       index.Layout `json:"layout"`
	Profile      string       `json:"profile,omitempty"`
	Packed       index.Packed `json:"packed"`
}

// store sums up a store.
func (r *reporter) store(ctx context.Context, dir string) (storeSummary, error) {
	s := storeSummary{Files: map[string]fileSums{}}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		r.Lacks("free space", err)
	}
	s.FreeBytes = st.Bavail * uint64(st.Bsize)
	if err := s.sum(dir); err != nil {
		r.Lacks("files of the store", err)
	}
	quiet := access.Stores{Log: r.a.log, Note: func(string, ...any) {}, Keys: r.a.stores.Keys}
	list, err := access.Read(ctx, quiet, dir, func(s *index.Store) ([]listed, error) {
		return listStore(ctx, s, nil)
	})
	for _, c := range list {
		one := checkpointSummary{
			Name: r.Names.Hide("checkpoint", c.Name), Created: c.Created, Generation: c.Generation,
			MemoryBytes: c.MemoryBytes, DataPages: c.DataPages, StoredBytes: c.StoredBytes,
			SegmentBytes: c.SegmentBytes, Layout: c.Layout, Profile: c.Profile, Packed: c.Packed,
		}
		if c.WorkingSet != nil {
			one.SetPages = c.WorkingSet.Pages
		}
		s.Checkpoints = append(s.Checkpoints, one)
	}
	return s, err
}

// sum adds up the files of a store by the directory right below it; "." is the store's own.
func (s *storeSummary) sum(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return nil // removed meanwhile
		}
		rel, err := filepath.Rel(dir, filepath.Dir(path))
		if err != nil {
			return err
		}
		part, _, _ := strings.Cut(rel, string(filepath.Separator))
		sums := s.Files[part]
		sums.Files++
		sums.Bytes += st.Size()
		s.Files[part] = sums
		return nil
	})
}
