package fleet

import (
	"bufio"
	"errors"
	"fmt"
	"os"
)

// Machine is one of the fleet in one of its states.
type Machine struct {
	fleet  *Fleet
	number uint64
	state  uint64
	rnd    *numbers
	frames []frame
	runs   [][]uint32 // free memory that was used, or will be first: physical runs
	fresh  uint32     // frames from here on were never used: they are zero
	cached map[uint32][]uint32
	next   uint32 // the file that was read last
}

// frame is what lies in a page of memory.
type frame struct {
	kind    kind
	version uint16 // how often it was changed
	object  uint32 // a number of the page that its machine never gives again, or of the file
	page    uint32 // of the file
}

// Shares of memory without the kernel, in per cent.
const (
	cacheShare   = 42
	kernelShare  = 9
	programShare = 24
	kernelPages  = 2048
	firstFrame   = 256 // what is below belongs to the firmware
)

// Machine makes a machine in its first state.
func (f *Fleet) Machine(number int) *Machine {
	m := &Machine{
		fleet: f, number: uint64(number), rnd: newNumbers(f.spec.Seed, uint64(number), 1),
		frames: make([]frame, f.spec.Bytes/PageSize), cached: map[uint32][]uint32{},
	}
	m.placeKernel()
	total := m.rest()
	for i := range total * kernelShare / 100 {
		m.put(frame{kind: kindKernel, object: i})
	}
	m.fill(total * cacheShare / 100)
	m.programs(total*programShare/100, 1)
	return m
}

// placeKernel puts the kernel below what is given out page by page.
func (m *Machine) placeKernel() {
	n := min(kernelPages, uint32(len(m.frames))/4)
	for i := range n {
		m.frames[firstFrame+i] = frame{kind: kindText, page: i}
	}
	m.fresh = firstFrame + n
}

// rest is how many pages there are without the kernel.
func (m *Machine) rest() uint32 {
	return uint32(len(m.frames)) - firstFrame - min(kernelPages, uint32(len(m.frames))/4)
}

// take returns the next frame of free memory. Memory that was never used is cut into runs in a random
// order, some of them at a time, as far as it is needed.
func (m *Machine) take() (gfn uint32, ok bool) {
	if len(m.runs) == 0 && !m.cut() {
		return 0, false
	}
	i := len(m.runs) - 1
	gfn = m.runs[i][0]
	if m.runs[i] = m.runs[i][1:]; len(m.runs[i]) == 0 {
		m.runs = m.runs[:i]
	}
	return gfn, true
}

// zone is how much memory is cut into runs at a time.
const zone = 4096

func (m *Machine) cut() bool {
	end := min(m.fresh+zone, uint32(len(m.frames)))
	for m.fresh < end {
		n := min(uint32(1+m.rnd.below(64)), end-m.fresh)
		run := make([]uint32, n)
		for i := range run {
			run[i] = m.fresh
			m.fresh++
		}
		m.runs = append(m.runs, run)
	}
	m.shuffle()
	return len(m.runs) > 0
}

func (m *Machine) shuffle() {
	for i := range m.runs {
		j := i + int(m.rnd.below(uint64(len(m.runs)-i)))
		m.runs[i], m.runs[j] = m.runs[j], m.runs[i]
	}
}

// put puts something into free memory, if there is any.
func (m *Machine) put(f frame) {
	if gfn, ok := m.take(); ok {
		m.frames[gfn] = f
		if f.kind == kindFile {
			m.cached[f.object] = append(m.cached[f.object], gfn)
		}
	}
}

// fill reads files until so many pages came.
func (m *Machine) fill(pages uint32) {
	files := m.fleet.files
	for read := uint32(0); read < pages; m.next++ {
		i := m.next % uint32(len(files))
		if m.rnd.percent(25) || m.cached[i] != nil {
			continue
		}
		n := min(files[i].pages(), pages-read)
		for page := range n {
			m.put(frame{kind: kindFile, object: i, page: page})
		}
		read += n
	}
}

// programs gives so many pages to programs.
func (m *Machine) programs(pages uint32, round uint32) {
	for i := range pages {
		m.put(frame{kind: kindProgram, object: round<<24 | i})
	}
}

// Advance brings the machine to its next state.
func (m *Machine) Advance() {
	m.state++
	m.rnd = newNumbers(m.fleet.spec.Seed, m.number, m.state, 2)
	freed := m.evict(m.rest() * cacheShare * 6 / 10000)
	given := m.change()
	m.shuffle()
	m.fill(freed)
	m.programs(given, uint32(m.state)+1)
}

// evict takes some files out of the page cache, and returns how many pages they had.
func (m *Machine) evict(pages uint32) (freed uint32) {
	for i := uint32(0); freed < pages && i < 1<<20; i++ {
		object := uint32(m.rnd.below(uint64(m.next)))
		gfns := m.cached[object]
		if gfns == nil {
			continue
		}
		m.free(gfns)
		freed += uint32(len(gfns))
		delete(m.cached, object)
	}
	return freed
}

// free makes pages free. They keep their bytes.
func (m *Machine) free(gfns []uint32) {
	start := 0
	for i := range gfns {
		if i+1 == len(gfns) || gfns[i+1] != gfns[i]+1 {
			m.runs = append(m.runs, gfns[start:i+1:i+1])
			start = i + 1
		}
	}
}

// change changes pages where they lie, and gives some back: it returns how many.
func (m *Machine) change() (given uint32) {
	var back []uint32
	for gfn := range m.frames {
		f := &m.frames[gfn]
		switch f.kind {
		case kindKernel:
			if m.rnd.percent(30) {
				f.version++
			}
		case kindProgram:
			if m.rnd.percent(15) {
				f.version++
			} else if m.rnd.percent(4) {
				back = append(back, uint32(gfn))
				f.kind = kindStale
			}
		}
	}
	m.free(back)
	return uint32(len(back))
}

// Write writes the memory as a sparse file.
func (m *Machine) Write(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(m.writeTo(f), f.Close()); err != nil {
		return fmt.Errorf("write state %d of machine %d: %w", m.state, m.number, err)
	}
	return nil
}

func (m *Machine) writeTo(f *os.File) error {
	open := map[string]*os.File{}
	defer closeAll(open)
	out := bufio.NewWriterSize(f, 1<<20)
	page := make([]byte, PageSize)
	at := int64(-1) // where out stands in the file
	for gfn, fr := range m.frames {
		if fr.kind == kindZero {
			continue
		}
		if err := m.page(open, fr, page); err != nil {
			return err
		}
		if off := int64(gfn) * PageSize; off != at {
			if err := out.Flush(); err != nil {
				return err
			}
			if _, err := f.Seek(off, 0); err != nil {
				return err
			}
			at = off
		}
		if _, err := out.Write(page); err != nil {
			return err
		}
		at += PageSize
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return f.Truncate(int64(len(m.frames)) * PageSize)
}
