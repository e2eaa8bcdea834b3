package guestmem

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// memoryBlocks are the names of the guest's blocks.
func (p *qemuParser) memoryBlocks() (names []string) {
	for _, b := range p.blocks {
		if b.memory {
			names = append(names, b.name)
		}
	}
	return names
}

// facts are what is known when the stream has been read.
func (p *qemuParser) facts() Facts {
	return Facts{"machine": p.machine, "ram_blocks": p.memoryBlocks()}
}

// regions says where the memory lies in the guest; nil where the machine is not one that is known, or may
// have been told otherwise.
func (p *qemuParser) regions() []Region {
	if len(p.memoryBlocks()) != 1 {
		return nil
	}
	size, low := uint64(p.size), uint64(0)
	switch {
	case strings.HasPrefix(p.machine, "pc-i440fx"):
		low = 0xE000_0000
		if size >= low {
			low = 0xC000_0000
		}
	case strings.HasPrefix(p.machine, "pc-q35"):
		low = 0xB000_0000
		if size >= low {
			low = 0x8000_0000
		}
	case strings.HasPrefix(p.machine, "virt-"):
		return []Region{{1 << 30, size, 0}}
	default:
		return nil
	}
	if size <= low {
		return []Region{{0, size, 0}}
	}
	return []Region{{0, low, 0}, {4 << 30, size - low, low}}
}

// reading says why no VMM can go on from it.
func (p *qemuParser) reading() string {
	switch {
	case p.mapped:
		return "the state of its devices is not taken out of a mapped-ram file, from which only QEMU restores it"
	case len(p.memoryBlocks()) != 1:
		return "its memory has several blocks, which lie one behind the other"
	}
	return ""
}

func streamError(path string, err error) error {
	return &FormatError{Path: path, Format: aQEMUStream, Why: "it cannot be read", Err: err, Do: streamHint(err)}
}

// streamHint says what to do about a stream that cannot be read.
func streamHint(err error) string {
	if errors.Is(err, errNothing) {
		return "it was saved with x-ignore-shared, so its memory is in the file of the memory backend: make a " +
			`directory with that file as "memory" and this stream as "state"`
	}
	return ""
}

// openQEMU finds the pages in a file that has a stream from an offset on.
func openQEMU(ctx context.Context, f *file, off int64) (*Saved, error) {
	state, err := memFile(stateFile)
	if err != nil {
		return nil, err
	}
	to := &qemuSink{pageTable: newPageTable(f)}
	p := newQEMUParser(newInput(ctx, f, off), to, state)
	to.mapped = &p.mapped
	s := &Saved{Format: "qemu", VMM: "qemu", Path: f.path, Files: map[string]string{}}
	s.keep(state)
	if err := p.run(); err != nil {
		return nil, errors.Join(streamError(f.path, err), s.Close())
	}
	s.Facts, s.Regions, s.Reading = p.facts(), p.regions(), p.reading()
	s.Saw = fmt.Sprintf("%s (machine %s) with %d MiB of memory (%s)", aQEMUStream, p.machine, p.size>>20,
		strings.Join(p.memoryBlocks(), ", "))
	to.size = p.size
	s.Memory = to.pageTable
	if p.mapped {
		if s.Memory, err = newPieces(f, to.list, p.size); err != nil {
			return nil, errors.Join(streamError(f.path, err), s.Close())
		}
		return s, nil
	}
	s.Files[stateFile] = state.Name()
	return s, nil
}

// qemuSink notes single pages in a table, and those of mapped-ram as pieces.
type qemuSink struct {
	*pageTable
	mapper
	mapped *bool
}

func (s *qemuSink) data(in *input, at, n int64) {
	if *s.mapped {
		s.mapper.data(in, at, n)
	} else {
		s.pageTable.data(in, at, n)
	}
}

func (s *qemuSink) zero(in *input, at, n int64) { s.pageTable.zero(in, at, n) }

// streamQEMU takes the memory out of a stream.
func streamQEMU(in *input) (*Saved, error) {
	state, err := memFile(stateFile)
	if err != nil {
		return nil, err
	}
	s := &Saved{Format: "qemu", VMM: "qemu", Path: in.path, Saw: aQEMUStream,
		Files: map[string]string{stateFile: state.Name()}}
	s.keep(state)
	s.Stream = streamFunc(func(ctx context.Context, put func(uint64, []byte) error) (End, error) {
		to := newFeeder(ctx, put)
		p := newQEMUParser(in, to, state)
		if err := p.run(); err != nil {
			return End{}, streamError(in.path, err)
		}
		if p.mapped {
			if err := state.Truncate(0); err != nil {
				return End{}, err
			}
		}
		return End{Size: p.size, Regions: p.regions(), Facts: p.facts(), Reading: p.reading()}, to.flush()
	})
	return s, nil
}
