package uffd

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/thawfs/thaw/index"
)

// The sizes that a VMM's pages have.
const (
	smallPage = index.PageSize
	hugePage  = 2 << 20
)

// A region is a part of a VM's memory: bytes from base on, which are those of the image from offset on.
type region struct{ base, size, offset uint64 }

// A layout is where the image lies in the address space of a VMM.
type layout struct {
	regions  []region // by base
	pageSize uint64
}

const (
	// maxRegions and maxMessage bound a handshake. Firecracker has some regions, of 150 bytes each.
	maxRegions = 256
	maxMessage = 1 << 20
	// maxAddress is above all addresses of user space, with five levels of page tables.
	maxAddress = 1 << 56
)

// wireRegion is a region in the handshake. page_size_kib was the name of page_size, and had bytes too.
type wireRegion struct {
	Base        *uint64 `json:"base_host_virt_addr"`
	Size        *uint64 `json:"size"`
	Offset      *uint64 `json:"offset"`
	PageSize    *uint64 `json:"page_size"`
	PageSizeKiB *uint64 `json:"page_size_kib"`
}

// errIncomplete: the message goes on.
var errIncomplete = errors.New("the message is not complete")

// parseRegions reads a handshake's message. errIncomplete says that more of it is to come.
func parseRegions(text []byte) ([]wireRegion, error) {
	if first := bytes.TrimLeft(text, " \t\r\n"); len(first) > 0 && first[0] != '[' {
		return nil, errors.New("the message is no JSON array of regions")
	}
	var regions []wireRegion
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&regions); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errIncomplete
	} else if err != nil {
		return nil, fmt.Errorf("the message is no JSON array of regions: %w", err)
	}
	if rest := text[d.InputOffset():]; len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%d bytes follow the message", len(rest))
	}
	return regions, nil
}

// newLayout checks regions against the size of the image.
func newLayout(wire []wireRegion, image uint64) (*layout, error) {
	if len(wire) == 0 || len(wire) > maxRegions {
		return nil, fmt.Errorf("%d regions: there must be 1 to %d", len(wire), maxRegions)
	}
	l := &layout{}
	var sum uint64
	for i, w := range wire {
		size, err := w.pageSize()
		if err == nil && i > 0 && size != l.pageSize {
			err = fmt.Errorf("its pages have %d bytes, those of the others %d", size, l.pageSize)
		}
		l.pageSize = size
		var r region
		if err == nil {
			r, err = w.region(size)
		}
		if err == nil && (r.offset > image || r.size > image-r.offset) {
			err = fmt.Errorf("its bytes %d to %d are beyond the %d bytes of the checkpoint's memory",
				r.offset, r.offset+r.size, image)
		}
		if err != nil {
			return nil, fmt.Errorf("region %d: %w", i, err)
		}
		l.regions = append(l.regions, r)
		sum += r.size
	}
	if err := apart(l.regions, "offsets", func(r region) uint64 { return r.offset }); err != nil {
		return nil, err
	}
	if err := apart(l.regions, "addresses", func(r region) uint64 { return r.base }); err != nil {
		return nil, err
	}
	if sum != image {
		return nil, fmt.Errorf("the VM has %d bytes of memory, the checkpoint %d: is it this VM's?", sum, image)
	}
	return l, nil
}

// pageSize of a region.
func (w wireRegion) pageSize() (uint64, error) {
	size := cmp.Or(w.PageSize, w.PageSizeKiB)
	switch {
	case size == nil:
		return smallPage, nil
	case w.PageSize != nil && w.PageSizeKiB != nil && *w.PageSize != *w.PageSizeKiB:
		return 0, fmt.Errorf("page_size is %d, page_size_kib %d: they must be equal", *w.PageSize, *w.PageSizeKiB)
	case *size != smallPage && *size != hugePage:
		return 0, fmt.Errorf("pages of %d bytes: only %d and %d are known", *size, smallPage, hugePage)
	}
	return *size, nil
}

func (w wireRegion) region(pageSize uint64) (region, error) {
	if w.Base == nil || w.Size == nil || w.Offset == nil {
		return region{}, errors.New("base_host_virt_addr, size or offset is missing")
	}
	r := region{*w.Base, *w.Size, *w.Offset}
	switch {
	case r.base == 0 || r.base >= maxAddress || r.size > maxAddress-r.base:
		return r, fmt.Errorf("%d bytes at address %#x are no memory of a process", r.size, r.base)
	case r.size == 0:
		return r, errors.New("it is empty")
	case (r.base|r.size|r.offset)%pageSize != 0:
		return r, fmt.Errorf("address %#x, size %d and offset %d must be multiples of its pages of %d bytes",
			r.base, r.size, r.offset, pageSize)
	}
	return r, nil
}

// apart sorts regions by something that they have, and finds two that overlap in it.
func apart(regions []region, what string, key func(region) uint64) error {
	slices.SortFunc(regions, func(a, b region) int { return cmp.Compare(key(a), key(b)) })
	for i, r := range regions[1:] {
		if last := regions[i]; key(r)-key(last) < last.size {
			return fmt.Errorf("two regions overlap in their %s, at %#x", what, key(r))
		}
	}
	return nil
}

// units is how many pages of the VM the memory has.
func (l *layout) units() (n uint64) {
	for _, r := range l.regions {
		n += r.size / l.pageSize
	}
	return n
}

// unit is the page of the VM that an address lies in, counted in the image; false if it lies in no region.
func (l *layout) unit(address uint64) (uint64, bool) {
	i, ok := slices.BinarySearchFunc(l.regions, address, func(r region, a uint64) int {
		return cmp.Compare(r.base, a)
	})
	if !ok {
		i--
	}
	if i < 0 || address-l.regions[i].base >= l.regions[i].size {
		return 0, false
	}
	return (address - l.regions[i].base + l.regions[i].offset) / l.pageSize, true
}

// place is the address of a page of the VM, and how many follow it there, itself included.
func (l *layout) place(unit uint64) (address, run uint64) {
	at := unit * l.pageSize
	for _, r := range l.regions {
		if at >= r.offset && at-r.offset < r.size {
			return r.base + at - r.offset, (r.size - (at - r.offset)) / l.pageSize
		}
	}
	return 0, 0
}
