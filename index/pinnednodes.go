package index

import (
	"errors"
	"fmt"
	"sync"

	"github.com/thawfs/thaw/index/pack"
)

// pinnedNodes reads nodes and other records out of pinned packs. It may be used by many goroutines
// at once.
type pinnedNodes struct {
	numbers []uint64 // ascending, as in pins
	pins    *pins

	mu      sync.Mutex
	readers map[*pack.Reader]*pack.RecordReader // guarded by mu
}

func newPinnedNodes(numbers []uint64, pins *pins) *pinnedNodes {
	return &pinnedNodes{
		numbers: numbers, pins: pins, readers: map[*pack.Reader]*pack.RecordReader{},
	}
}

// node implements nodes.
func (n *pinnedNodes) node(ref uint64, kind uint32) ([]byte, error) {
	pos, ok := searchUint64(n.numbers, ref>>24)
	if !ok {
		return nil, &CorruptError{Pack: fmt.Sprint(ref >> 24), What: "pack",
			Err: errors.New("referred to, but not listed")}
	}
	if err := n.pins.errs[pos]; err != nil {
		return nil, err
	}
	p := n.pins.entries[pos].acquire()
	if p == nil {
		return nil, ErrClosed
	}
	defer p.release()
	n.mu.Lock()
	r := n.readers[p.Reader]
	if r == nil {
		r = p.NewRecordReader()
		n.readers[p.Reader] = r
	}
	n.mu.Unlock()
	return readNode(p.Reader, r.ReadRecord, ref, kind)
}

// readNode reads the record of a ref, which must be of a certain kind, by a function of the pack's reader.
func readNode(p *pack.Reader, read func(record int, dst []byte) ([]byte, error), ref uint64, kind uint32) (
	[]byte, error,
) {
	record := int(pack.Ref(ref).Slot())
	b, err := read(record, nil)
	if err != nil {
		return nil, err
	}
	if got := p.Record(record).Kind; got != kind {
		return nil, &CorruptError{Pack: p.Name(), What: fmt.Sprintf("record %d: of kind %d, want %d",
			record, got, kind)}
	}
	return b, nil
}
