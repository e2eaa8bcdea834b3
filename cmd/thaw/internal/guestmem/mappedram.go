package guestmem

import (
	"bytes"
	"math"
)

// mappedBlock reads the header of a block, its bitmap and its pages.
func (p *qemuParser) mappedBlock(b *qemuBlock) {
	in := p.in
	version, pageSize, bitmap, pages := in.be32(), in.be64(), in.be64(), in.be64()
	n := (b.size/PageSize + 63) / 64 * 8 // bytes of the bitmap
	switch {
	case in.err != nil:
		return
	case bitmap == 0 && pages == 0: // shared, and not in the file
		return
	case version != 1 || pageSize != PageSize:
		in.failf("block %q has version %d and pages of %d bytes", b.name, version, pageSize)
	case bitmap < uint64(in.off) || bitmap > math.MaxInt64/2 || pages > math.MaxInt64/2 ||
		pages < bitmap+uint64(n):
		in.failf("block %q has its bitmap at %d and its pages at %d", b.name, bitmap, pages)
	}
	in.kept = nil
	defer func() { in.kept = &p.record }()
	in.skip(int64(bitmap) - in.off)
	var bits bytes.Buffer // grows with what really comes
	for left := n; left > 0 && in.err == nil; left -= 64 << 10 {
		part := make([]byte, min(left, 64<<10))
		in.read(part)
		bits.Write(part)
	}
	if in.err == nil {
		p.mappedPages(b, bits.Bytes(), int64(pages))
		in.skip(int64(pages) + b.size - in.off)
	}
}

// mappedPages takes the pages whose bits are set.
func (p *qemuParser) mappedPages(b *qemuBlock, bits []byte, pages int64) {
	if !b.memory {
		return
	}
	in := p.in
	set := func(i int64) bool { return bits[i/8]>>(i%8)&1 != 0 }
	p.pages++
	for i := int64(0); i < b.size/PageSize && in.err == nil; {
		if i%8 == 0 && bits[i/8] == 0 {
			i += 8
			continue
		}
		if !set(i) {
			i++
			continue
		}
		j := i + 1
		for j < b.size/PageSize && set(j) {
			j++
		}
		in.skip(pages + i*PageSize - in.off)
		p.sink.data(in, b.base+i*PageSize, (j-i)*PageSize)
		i = j
	}
}
