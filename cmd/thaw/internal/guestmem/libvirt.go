package guestmem

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A save file of libvirt ("virsh save", "virsh managedsave") is a header of 92 bytes, in the byte order of
// its host:
//
//	0   16  "LibvirtQemudSave"; "LibvirtQemudPart" while it is written
//	16   4  version: 2 (that is how the byte order is known)
//	20   4  length of what follows the header
//	24   4  1 if the machine was running
//	28   4  format of the stream: 0 raw, 1 gzip, 2 bzip2, 3 xz, 4 lzop, 5 zstd, 6 sparse
//	32   4  offset of the cookie
//	36  56  unused
//
// then the domain in XML, up to a zero byte, the cookie, and room for changes; then a migration stream of
// QEMU, compressed as a whole in formats 1 to 5, with mapped-ram in format 6.

const (
	aLibvirtSave  = "a save file of libvirt"
	libvirtHeader = 92
	// maxDomain bounds what lies before the stream.
	maxDomain = 64 << 20
	// Names of the files of a checkpoint: the domain, and all that lies before the stream.
	domainFile     = "domain.xml"
	saveHeaderFile = "libvirt-save-header"
)

// libvirtSave is what lies before the stream.
type libvirtSave struct {
	head    []byte // all of it
	format  uint32
	running bool
}

// formatName is the name of a format of the stream.
func (s *libvirtSave) formatName() string {
	names := []string{"raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"}
	if s.format < uint32(len(names)) {
		return names[s.format]
	}
	return fmt.Sprintf("format %d", s.format)
}

// readLibvirt reads up to the stream.
func readLibvirt(in *input) (*libvirtSave, error) {
	h := make([]byte, libvirtHeader)
	in.read(h)
	if in.err != nil {
		return nil, in.err
	}
	if bytes.HasPrefix(h, []byte("LibvirtQemudPart")) {
		return nil, errors.New("it was not written to its end: the save failed, or goes on")
	}
	order := binary.ByteOrder(binary.LittleEndian)
	version := order.Uint32(h[16:])
	if version > 0xffff {
		order = binary.BigEndian
		version = order.Uint32(h[16:])
	}
	n := order.Uint32(h[20:])
	s := &libvirtSave{format: order.Uint32(h[28:]), running: order.Uint32(h[24:]) != 0}
	switch {
	case version != 1 && version != 2:
		return nil, fmt.Errorf("it has version %d, and only 1 and 2 are known", version)
	case n == 0 || n > maxDomain:
		return nil, fmt.Errorf("its domain has %d bytes", n)
	}
	rest := make([]byte, n)
	if in.read(rest); in.err != nil {
		return nil, in.err
	}
	s.head = append(h, rest...)
	if s.xml() == nil {
		return nil, errors.New("its domain has no end")
	}
	return s, nil
}

// xml is the domain.
func (s *libvirtSave) xml() []byte {
	text, _, ok := bytes.Cut(s.head[libvirtHeader:], []byte{0})
	if !ok {
		return nil
	}
	return text
}

func libvirtError(path string, err error) error {
	return &FormatError{Path: path, Format: aLibvirtSave, Why: "it is not imported", Err: err}
}

// openLibvirt opens a save file. f is nil for a stream.
func openLibvirt(in *input, f *file) (*Saved, error) {
	save, err := readLibvirt(in)
	if err != nil {
		return nil, libvirtError(in.path, err)
	}
	s, err := save.open(in, f)
	if err != nil {
		return nil, err
	}
	s.Format, s.Saw = "libvirt", fmt.Sprintf("%s (%s): %s", aLibvirtSave, save.formatName(), s.Saw)
	facts := Facts{"stream": save.formatName(), "was_running": save.running}
	for name, fact := range s.Facts {
		facts[name] = fact
	}
	s.Facts = facts
	for name, text := range map[string][]byte{domainFile: save.xml(), saveHeaderFile: save.head} {
		if err := s.addFile(name, text); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// open opens the stream of QEMU.
func (save *libvirtSave) open(in *input, f *file) (*Saved, error) {
	kinds := map[uint32]kind{1: gzipFile, 2: bzip2File, 3: xzFile, 4: lzopFile, 5: zstdFile}
	k, compressed := kinds[save.format]
	switch {
	case (save.format == 0 || save.format == 6) && f != nil:
		return openQEMU(in.ctx, f, in.off)
	case save.format == 0 || save.format == 6:
		return streamQEMU(in)
	case !compressed:
		return nil, libvirtError(in.path, fmt.Errorf("its %s is not known", save.formatName()))
	}
	z, err := decompress(k, in.r)
	if err != nil {
		return nil, libvirtError(in.path, fmt.Errorf("decompress it: %w", err))
	}
	inner := newStreamInput(in.path, z)
	s, err := streamQEMU(inner)
	if err != nil {
		z.end()
		return nil, err
	}
	s.keep(z)
	s.Stream = drained(s.Stream, inner)
	return s, nil
}

// addFile adds a file with this text to the checkpoint.
func (s *Saved) addFile(name string, text []byte) error {
	f, err := memFile(name)
	if err != nil {
		return err
	}
	s.keep(f)
	if s.Files == nil {
		s.Files = map[string]string{}
	}
	s.Files[name] = f.Name()
	_, err = f.Write(text)
	return err
}

// RawLibvirtHeader is what lies before the stream of a save file, changed to say that the stream is not
// compressed.
func RawLibvirtHeader(head io.ReaderAt) io.ReaderAt { return rawHeader{head} }

type rawHeader struct{ io.ReaderAt }

// Bytes of the header that tell the format of the stream; zeros mean raw in either byte order.
const libvirtFormatAt, libvirtFormatEnd = 28, 32

// ReadAt implements io.ReaderAt.
func (h rawHeader) ReadAt(p []byte, off int64) (int, error) {
	n, err := h.ReaderAt.ReadAt(p, off)
	for i := max(libvirtFormatAt, off); i < min(libvirtFormatEnd, off+int64(n)); i++ {
		p[i-off] = 0
	}
	return n, err
}
