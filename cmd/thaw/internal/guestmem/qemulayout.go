package guestmem

import (
	"fmt"
	"io"
)

// QEMURecords says what a migration stream without the guest's pages, as "state" of a checkpoint is one,
// has of them: where records of pages may be put in, and of which blocks they are.
type QEMURecords struct {
	At     int64 // byte of the stream, behind the list of blocks
	Blocks []QEMUBlock
}

// QEMUBlock is a block of guest memory; its pages lie at Base of the image. Both numbers are in bytes.
type QEMUBlock struct {
	Name       string
	Base, Size int64
}

// Bytes of records of pages in the section of the RAM.
const (
	QEMUHeader     = 8 // of a record: address and flags
	QEMUPageRecord = QEMUHeader + PageSize
	QEMUZeroRecord = QEMUHeader + 1
)

// Flags in the low bits of a record's address. With Continue it is of the block of the record before, and the
// name of the block, behind its length, is left out.
const (
	QEMUZero     = ramZero
	QEMUPage     = ramPage
	QEMUContinue = ramContinue
)

// FindQEMURecords reads a stream up to the list of its blocks.
func FindQEMURecords(name string, r io.Reader) (q QEMURecords, err error) {
	in := newStreamInput(name, r)
	p := newQEMUParser(in, nil, nil)
	p.listOnly = true
	p.header()
	for in.err == nil && p.blocks == nil {
		if p.section() {
			in.failf("its RAM ends before its blocks are listed")
		}
	}
	if in.err == nil && p.mapped {
		in.failf("its pages lie where their addresses say (mapped-ram)")
	}
	if in.err != nil {
		return q, fmt.Errorf("%s is no migration stream of QEMU that pages can be put into: %w", name, in.err)
	}
	q.At = in.off
	for _, b := range p.blocks {
		if b.memory {
			q.Blocks = append(q.Blocks, QEMUBlock{b.name, b.base, b.size})
		}
	}
	return q, nil
}
