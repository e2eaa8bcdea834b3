package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/wss"
)

// makeImage writes a sparse image: of three pages one is a hole, one compressible, one a copy of an
// earlier one.
func makeImage(path, sizeText, seedText string) error {
	n, err := parseSize(sizeText)
	if err != nil {
		return err
	}
	seed, err := strconv.ParseUint(seedText, 10, 64)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(seed, 0))
	page := make([]byte, wss.PageSize)
	for off := int64(0); off+wss.PageSize <= n; off += wss.PageSize {
		switch off / wss.PageSize % 3 {
		case 0:
			continue
		case 1:
			for i := range page {
				page[i] = byte(r.Uint32N(7))
			}
		}
		if _, err := f.WriteAt(page, off); err != nil {
			return err
		}
	}
	return f.Truncate(n)
}

// flip changes one byte of a file.
func flip(path, offset string) error {
	off, err := strconv.ParseInt(offset, 10, 64)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if off < 0 {
		off += int64(len(data))
	}
	data[off] ^= 0x40
	return os.WriteFile(path, data, 0o644)
}

// status compares the status of the last run with a name of the table.
func (s *script) status(name string) error {
	if got := exitcode.Code(s.code).Name(); got != name {
		return fmt.Errorf("ended with %d, %s", s.code, got)
	}
	return nil
}
