package device

import "fmt"

// virtio-blk (virtio 1.2, 5.2).
const (
	blockID = 2 // device ID

	blockFeatureSizeMax     = 1 << 1
	blockFeatureSegMax      = 1 << 2
	blockFeatureReadOnly    = 1 << 5
	blockFeatureBlockSize   = 1 << 6
	blockFeatureFlush       = 1 << 9
	blockFeatureDiscard     = 1 << 13
	blockFeatureWriteZeroes = 1 << 14

	blockIn          = 0
	blockOut         = 1
	blockFlush       = 4
	blockGetID       = 8
	blockDiscard     = 11
	blockWriteZeroes = 13

	blockOK          = 0
	blockIOError     = 1
	blockUnsupported = 2

	blockHeader  = 16 // type, priority, sector
	blockIDBytes = 20
	blockRange   = 16 // sector, sectors, flags
	blockUnmap   = 1  // the one flag of a range
)

// Limits that the device reports to the driver. Together they bound the time of one request, and so
// that of a Drain.
const (
	blockSizeMax = 64 << 10 // bytes of a segment
	blockSegMax  = 126      // segments of a request
	blockMax     = blockSizeMax * blockSegMax
	blockRanges  = 16      // of a discard
	blockZeroMax = 1 << 15 // sectors of a range

	blockBuffer = 128 << 10 // bytes of the buffer for all transfers
)

// Block is a virtio-blk device. It serves its requests one by one, on its own goroutine. When a write
// request is complete, the data is in the file and visible to other processes. It is on the medium
// after a flush; for a driver without flushes, at once.
//
// An error of the file becomes an I/O error of the request. It never ends the machine.
type Block struct {
	virtio
	disk   *Disk
	buffer []byte

	// Owned by the worker while it is busy, otherwise guarded by mu.
	id       [blockIDBytes]byte
	dirty    bool  // written since the last sync
	syncErr  error // of a sync, not yet reported to the guest
	changed  int64 // modification time of the storage at the last settle, in ns since 1970
	reported bool  // an error of the storage has been logged
}

// NewBlock makes a device over a disk, drained. The disk belongs to the device.
func NewBlock(config VirtioConfig, disk *Disk) *Block {
	b := &Block{disk: disk, buffer: make([]byte, blockBuffer)}
	copy(b.id[:], disk.name)
	b.start(config, b, 1)
	return b
}

func (b *Block) deviceID() uint32 { return blockID }

func (b *Block) features() uint64 {
	const always = blockFeatureSizeMax | blockFeatureSegMax | blockFeatureBlockSize | blockFeatureFlush
	if b.disk.readOnly {
		return always | blockFeatureReadOnly
	}
	return always | blockFeatureDiscard | blockFeatureWriteZeroes
}

// config encodes struct virtio_blk_config.
func (b *Block) config() []byte {
	c := make([]byte, 60)
	le.PutUint64(c[0:], b.disk.sectors)
	le.PutUint32(c[8:], blockSizeMax)
	le.PutUint32(c[12:], blockSegMax)
	le.PutUint32(c[20:], sectorSize)
	le.PutUint32(c[36:], blockZeroMax) // discard: sectors of a range
	le.PutUint32(c[40:], blockRanges)
	le.PutUint32(c[44:], 1) // alignment, in sectors
	le.PutUint32(c[48:], blockZeroMax)
	le.PutUint32(c[52:], blockRanges)
	c[56] = 1 // writing zeroes may unmap
	return c
}

// serve serves a request: a header, the data, and one byte at the end for the status.
func (b *Block) serve(c *chain, features uint64) (uint32, error) {
	if c.in.size < blockHeader || c.out.size < 1 {
		return 0, askReset("a disk request of %d bytes to read and %d to write", c.in.size, c.out.size)
	}
	status := c.out.cutLast()
	room := c.out.size
	code, err := b.request(c, features)
	if err != nil {
		return 0, err
	}
	if err := status.write([]byte{code}); err != nil {
		return 0, err
	}
	return uint32(room-c.out.size) + 1, nil
}

// request does what a header says and returns the status. err is only an error of guest memory.
func (b *Block) request(c *chain, features uint64) (code byte, err error) {
	var header [blockHeader]byte
	if err := c.in.read(header[:]); err != nil {
		return 0, err
	}
	sector := le.Uint64(header[8:])
	switch op := le.Uint32(header[0:]); {
	case op == blockIn:
		return b.read(sector, &c.out)
	case op == blockGetID:
		return blockOK, c.out.write(b.id[:min(c.out.size, blockIDBytes)])
	case op == blockFlush:
		return b.flush(), nil
	case b.disk.readOnly && (op == blockOut || op == blockDiscard || op == blockWriteZeroes):
		return blockIOError, nil
	case op == blockOut:
		if code, err = b.write(sector, &c.in); err != nil || code != blockOK {
			return code, err
		}
	case op == blockDiscard || op == blockWriteZeroes:
		if code, err = b.zero(op, &c.in); err != nil || code != blockOK {
			return code, err
		}
	default:
		return blockUnsupported, nil
	}
	if features&blockFeatureFlush == 0 {
		return b.flush(), nil
	}
	return blockOK, nil
}

// inside says whether size bytes from a sector on are whole sectors of the disk.
func (b *Block) inside(sector, size uint64) bool {
	return size%sectorSize == 0 && sector <= b.disk.sectors &&
		size/sectorSize <= b.disk.sectors-sector
}

// transfer copies a request's data through the buffer, from the disk or to it.
func (b *Block) transfer(sector uint64, data *stream, step func(p []byte, off int64) (byte, error)) (
	byte, error) {
	if data.size > blockMax || !b.inside(sector, data.size) {
		return blockIOError, nil
	}
	for off := int64(sector * sectorSize); data.size > 0; {
		p := b.buffer[:min(data.size, blockBuffer)]
		if code, err := step(p, off); err != nil || code != blockOK {
			return code, err
		}
		off += int64(len(p))
	}
	return blockOK, nil
}

func (b *Block) read(sector uint64, out *stream) (byte, error) {
	return b.transfer(sector, out, func(p []byte, off int64) (byte, error) {
		if n, err := b.disk.storage.ReadAt(p, off); n < len(p) {
			return b.failed("read", err), nil
		}
		return blockOK, out.write(p)
	})
}

func (b *Block) write(sector uint64, in *stream) (byte, error) {
	return b.transfer(sector, in, func(p []byte, off int64) (byte, error) {
		b.dirty = true
		if err := in.read(p); err != nil {
			return 0, err
		}
		if _, err := b.disk.storage.WriteAt(p, off); err != nil {
			return b.failed("write", err), nil
		}
		return blockOK, nil
	})
}

// zero does a discard or a write of zeros, for several ranges.
func (b *Block) zero(op uint32, in *stream) (byte, error) {
	if in.size%blockRange != 0 || in.size > blockRanges*blockRange {
		return blockIOError, nil
	}
	b.dirty = true
	for in.size > 0 {
		var r [blockRange]byte
		if err := in.read(r[:]); err != nil {
			return 0, err
		}
		sector, size := le.Uint64(r[0:]), uint64(le.Uint32(r[8:]))*sectorSize
		flags := le.Uint32(r[12:])
		if flags&^blockUnmap != 0 || op == blockDiscard && flags != 0 {
			return blockUnsupported, nil
		}
		if size > blockZeroMax*sectorSize || !b.inside(sector, size) {
			return blockIOError, nil
		}
		if size == 0 {
			continue
		}
		var err error
		if off := int64(sector * sectorSize); op == blockDiscard {
			err = b.disk.storage.Discard(off, int64(size))
		} else {
			err = b.disk.storage.Zero(off, int64(size), flags&blockUnmap != 0)
		}
		if err != nil {
			return b.failed("zero", err), nil
		}
	}
	return blockOK, nil
}

// flush syncs the disk and returns the status.
func (b *Block) flush() byte {
	if err := b.sync(); err != nil {
		b.syncErr = nil // now the guest knows
		return b.failed("flush", err)
	}
	return blockOK
}

// sync syncs the storage, if it was written to. The kernel reports a failed write-back only once, so an
// error is kept until a flush has reported it to the guest.
func (b *Block) sync() error {
	if b.dirty {
		if err := b.disk.storage.Sync(); err != nil {
			b.syncErr = err
			return err
		}
		b.dirty = false
	}
	return b.syncErr
}

// failed logs the first error of the storage and returns the status for an error.
func (b *Block) failed(op string, err error) byte {
	if !b.reported {
		b.reported = true
		b.machine.Log.Warn("disk error, further ones are not logged", "disk", b.disk.name, "op", op,
			"err", err)
	}
	return blockIOError
}

// settle syncs the disk before the guest's memory is saved: that memory records which writes are complete.
func (b *Block) settle() error {
	err := b.sync()
	if err != nil {
		return fmt.Errorf("sync disk %s: %w", b.disk.name, err)
	}
	changed, err := b.disk.storage.Changed()
	if err != nil {
		return fmt.Errorf("disk %s: %w", b.disk.name, err)
	}
	b.changed = changed.UnixNano()
	return nil
}

func (b *Block) close() error { return b.disk.Close() }
