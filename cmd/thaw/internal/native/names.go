package native

import (
	"context"
	"encoding/json"
	"maps"

	"github.com/thawfs/thaw/cmd/thaw/internal/guestmem"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

// Names are the names of a checkpoint on a mount.
func Names(c index.Checkpoint) fs.Names {
	var n fs.Names
	if alias := memoryName(&c); alias != "" {
		n.Memory = []string{alias}
	}
	if s := streamOf(&c); s != nil {
		n.Composed = []fs.Composed{{Name: s.name, Size: s.size, Open: s.open}}
	}
	return n
}

// memoryName is what the VMM calls the memory; empty if nothing else, or if another file has that name.
func memoryName(c *index.Checkpoint) (name string) {
	switch i := infoOf(c); {
	case i.Imported.Format == firecrackerVMM && has(c, fcState):
		name = fcMemory
	case i.Imported.Format == cloudVMM && has(c, chState):
		name = chMemory
	}
	if has(c, name) {
		return ""
	}
	return name
}

// Added are those files of a directory that a mount adds to a checkpoint with this info.json: another name of
// its memory, and a composed file. Such a directory is on a mount, or was copied from one. memory is the size
// of its memory, files are those of the others.
func Added(guest json.RawMessage, memory int64, files map[string]int64) (names []string) {
	c := index.Checkpoint{Guest: guest, Files: maps.Clone(files), ZeroPages: uint64(memory) / pageSize}
	for _, name := range []string{fcMemory, chMemory, streamFile, libvirtFile} {
		delete(c.Files, name)
	}
	if name := memoryName(&c); name != "" && files[name] == memory {
		names = append(names, name)
	}
	if s := streamOf(&c); s != nil {
		// Each page that is not zero makes it so much larger than it is with none.
		const more = guestmem.QEMUPageRecord - guestmem.QEMUZeroRecord
		if d := files[s.name] - s.size; d >= 0 && d%more == 0 && d/more <= memory/pageSize {
			names = append(names, s.name)
		}
	}
	return names
}

// stream is a file with a migration stream in it.
type stream struct {
	name   string
	size   int64
	head   string // the file that lies before the stream; empty: none
	blocks []string
}

// streamOf is the stream that a checkpoint is composed to; nil if it is none, or if another file has its
// name.
func streamOf(c *index.Checkpoint) *stream {
	i := infoOf(c)
	if !i.streams(c) {
		return nil
	}
	s := &stream{name: streamFile, blocks: i.Imported.Blocks}
	if i.Imported.Format == "libvirt" {
		if !has(c, libvirtHead) {
			return nil
		}
		s.name, s.head = libvirtFile, libvirtHead
		s.size = c.Files[libvirtHead]
	}
	if has(c, s.name) {
		return nil
	}
	s.size += c.Files[stateFile] + recordBytes(c.DataPages, c.ZeroPages)
	for _, name := range s.blocks {
		s.size += int64(1 + len(name))
	}
	return s
}

// open opens the stream of an image.
func (s *stream) open(_ context.Context, m fs.Image, file func(string) (fs.File, error)) (fs.File, error) {
	f, err := s.compose(m, func(name string) (File, error) { return file(name) })
	if err != nil {
		return nil, err
	}
	return f, nil
}
