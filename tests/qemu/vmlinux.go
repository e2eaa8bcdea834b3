package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// WriteVmlinux writes the ELF kernel that is inside of the tools' bzImage to a file:
// setup_header.payload_offset and payload_length say where it lies, its first bytes how it is
// compressed.
func (t Tools) WriteVmlinux(path string) error {
	file, err := os.ReadFile(t.Kernel)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	start := (int(file[0x1f1]) + 1) * 512
	offset, length := int(le.Uint32(file[0x248:])), int(le.Uint32(file[0x24c:]))
	elf, err := decompress(file[start+offset:][:length])
	if err != nil {
		return fmt.Errorf("vmlinux of %s: %w", t.Kernel, err)
	}
	return os.WriteFile(path, elf, 0o644)
}

func decompress(payload []byte) ([]byte, error) {
	if bytes.HasPrefix(payload, []byte{0x02, 0x21, 0x4c, 0x18}) {
		return unLZ4(payload[4:])
	}
	for magic, tool := range map[string][]string{
		"\xfd7zXZ": {"xz", "-dc", "--single-stream"}, "\x1f\x8b": {"gzip", "-dc"},
		"\x28\xb5\x2f\xfd": {"zstd", "-dc"},
	} {
		if !bytes.HasPrefix(payload, []byte(magic)) {
			continue
		}
		cmd := exec.Command(tool[0], tool[1:]...)
		cmd.Stdin = bytes.NewReader(payload)
		out, err := cmd.Output()
		var status *exec.ExitError
		if len(out) > 0 && (err == nil || errors.As(err, &status)) {
			return out, nil // the four bytes with the size, behind the data, are an error to the tool
		}
		return nil, fmt.Errorf("%s: %w", tool[0], err)
	}
	return nil, fmt.Errorf("payload begins with % x", payload[:6])
}

var errLZ4 = errors.New("damaged LZ4 block")

// unLZ4 decodes the form that the kernel's build uses: blocks of 8 MiB, each behind its compressed
// size, and the size of it all at the end.
func unLZ4(b []byte) (out []byte, err error) {
	for len(b) > 4 {
		size := int(binary.LittleEndian.Uint32(b))
		if b = b[4:]; size > len(b) {
			return nil, errLZ4
		}
		if out, err = lz4Block(out, b[:size]); err != nil {
			return nil, err
		}
		b = b[size:]
	}
	return out, nil
}

// lz4Block decodes sequences of literals and of copies from before.
func lz4Block(out, b []byte) ([]byte, error) {
	begin := len(out)
	for len(b) > 0 {
		token := b[0]
		b = b[1:]
		more := func(n int) int {
			for last := byte(255); n >= 15 && last == 255 && len(b) > 0; b = b[1:] {
				last = b[0]
				n += int(last)
			}
			return n
		}
		literals := more(int(token >> 4))
		if literals > len(b) {
			return nil, errLZ4
		}
		out, b = append(out, b[:literals]...), b[literals:]
		if len(b) == 0 {
			return out, nil // the last sequence has literals only
		}
		if len(b) < 2 {
			return nil, errLZ4
		}
		back := int(binary.LittleEndian.Uint16(b))
		b = b[2:]
		if back == 0 || back > len(out)-begin {
			return nil, errLZ4
		}
		for n := more(int(token&0xf)) + 4; n > 0; n-- {
			out = append(out, out[len(out)-back])
		}
	}
	return out, nil
}
