package native

import (
	"context"

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

// memoryName is what the VMM calls the memory; empty if nothing else.
func memoryName(c *index.Checkpoint) string {
	switch i := infoOf(c); {
	case i.Imported.Format == firecrackerVMM && has(c, fcState):
		return fcMemory
	case i.Imported.Format == cloudVMM && has(c, chState):
		return chMemory
	}
	return ""
}

// stream is a file with a migration stream in it.
type stream struct {
	name   string
	size   int64
	head   string // the file that lies before the stream; empty: none
	blocks []string
}

// streamOf is the stream that a checkpoint is composed to; nil if it is none.
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
