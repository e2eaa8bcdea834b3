package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// found is what lies in the blob store.
type found struct {
	packs map[uint64]packInfo
	roots map[string]foundRoot
}

type foundRoot struct {
	generation uint32
	bytes      int64
}

// recover brings catalog, packs and index up to what the blobs say. The blobs are the truth; in the
// usual case the index has all of it, and no blob is opened.
//
//   - A root is there: so the checkpoint is, whether the index knows it or not (rolled forward).
//   - Of two generations of a pack or root the higher one counts; the lower one goes.
//   - A pack that no root refers to and the index does not know is what an interrupted import left:
//     it goes. Unless a root cannot be read, because then nobody knows what that one needs.
//   - What the index knows and no blob has: it is forgotten.
func (s *Store) recover(ctx context.Context) error {
	f, err := s.listBlobs(ctx)
	if err != nil {
		return err
	}
	for number, info := range f.packs {
		s.packs.add(number, info)
		s.next = max(s.next, number+1)
	}
	s.next = max(s.next, 1)
	k, err := s.readIndexed()
	if err != nil {
		return err
	}
	s.next = max(s.next, k.next)
	rows, err := s.recoverRoots(ctx, f, k)
	if err != nil {
		return err
	}
	more, err := s.recoverPacks(ctx, f, k)
	if err != nil {
		return err
	}
	rows = append(rows, more...)
	if !k.known {
		rows = append(rows, row{metaKey(metaVersion), []byte{keyVersion}})
	}
	if s.keys != nil && len(rows) > 0 {
		return s.keys.update(rows)
	}
	return nil
}

// listBlobs finds packs and roots, and removes generations that were replaced.
func (s *Store) listBlobs(ctx context.Context) (*found, error) {
	f := &found{packs: map[uint64]packInfo{}, roots: map[string]foundRoot{}}
	packs, err := s.blobs.List(ctx, pack.Prefix)
	if err != nil {
		return nil, err
	}
	for _, b := range packs {
		n, g, ok := pack.ParseName(b.Name)
		if !ok {
			s.log.Warn("not a pack: left alone", "blob", b.Name)
			continue
		}
		info := packInfo{generation: g, bytes: b.Size}
		if old, twice := f.packs[n]; twice {
			if info, err = s.choosePack(ctx, n, old, info); err != nil {
				return nil, err
			}
		}
		f.packs[n] = info
	}
	roots, err := s.blobs.List(ctx, rootsDirName+"/")
	if err != nil {
		return nil, err
	}
	for _, b := range roots {
		name, g, ok := parseRootName(b.Name)
		if !ok {
			s.log.Warn("not a checkpoint: left alone", "blob", b.Name)
			continue
		}
		r := foundRoot{generation: g, bytes: b.Size}
		if old, twice := f.roots[name]; twice {
			if r, err = s.chooseRoot(ctx, name, old, r); err != nil {
				return nil, err
			}
		}
		f.roots[name] = r
	}
	return f, nil
}

// choosePack keeps the higher one of two generations, if it is sound.
func (s *Store) choosePack(ctx context.Context, n uint64, a, b packInfo) (packInfo, error) {
	if a.generation > b.generation {
		a, b = b, a
	}
	r, err := s.packs.openBlob(ctx, n, b.generation)
	if err != nil {
		s.log.Error("the newer generation of a pack is damaged: the older one stays in use", "err", err)
		return a, nil
	}
	r.Close()
	return b, s.blobs.Remove(ctx, pack.Name(n, a.generation))
}

// chooseRoot keeps the higher one of two generations, if it is sound.
func (s *Store) chooseRoot(ctx context.Context, name string, a, b foundRoot) (foundRoot, error) {
	if a.generation > b.generation {
		a, b = b, a
	}
	if _, err := readRoot(ctx, s.blobs, s.dec, name, b.generation); err != nil {
		s.log.Error("the newer generation of a root is damaged: the older one stays in use", "err", err)
		return a, nil
	}
	return b, s.blobs.Remove(ctx, rootName(name, a.generation))
}

// indexed is what the Badger index knows.
type indexed struct {
	known bool // the index was made by this program, and not just now
	next  uint64
	packs map[uint64]packInfo
	roots map[string]*catalogEntry
}

func (s *Store) readIndexed() (*indexed, error) {
	k := &indexed{packs: map[uint64]packInfo{}, roots: map[string]*catalogEntry{}}
	if s.keys == nil {
		return k, nil
	}
	_, known, err := s.keys.get(metaKey(metaVersion))
	if err != nil || !known {
		return k, err
	}
	k.known = true
	v, _, err := s.keys.get(metaKey(metaNext))
	if err != nil {
		return nil, err
	}
	k.next = parseRef(v)
	err = s.keys.scan(rowPack, func(key, value []byte) error {
		if len(key) == 8 {
			k.packs[binary.BigEndian.Uint64(key)] = parsePackRow(value)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = s.keys.scan(rowCheckpoint, func(key, value []byte) error {
		// A row that cannot be read is like none: the root is read instead.
		if e, err := parseCatalogRow(value); err == nil && e.Name == string(key) {
			k.roots[e.Name] = e
		}
		return nil
	})
	return k, err
}

func packRowOf(number uint64, info packInfo) row {
	v := binary.AppendUvarint(nil, uint64(info.generation))
	return row{packKey(number), binary.AppendUvarint(v, uint64(info.bytes))}
}

// parsePackRow gives what matches no pack for a row that is malformed.
func parsePackRow(v []byte) packInfo {
	g, w := binary.Uvarint(v)
	if w <= 0 {
		return packInfo{bytes: -1}
	}
	n, w := binary.Uvarint(v[w:])
	if w <= 0 {
		return packInfo{bytes: -1}
	}
	return packInfo{generation: uint32(g), bytes: int64(n)}
}

// recoverRoots fills the catalog, from the index where that is up to date.
func (s *Store) recoverRoots(ctx context.Context, f *found, k *indexed) (rows []row, err error) {
	for _, name := range sortedKeys(f.roots) {
		fr := f.roots[name]
		if e := k.roots[name]; e != nil && e.Generation == fr.generation && e.rootBytes == fr.bytes {
			s.cat.m[name] = e
			continue
		}
		r, err := readRoot(ctx, s.blobs, s.dec, name, fr.generation)
		if err != nil {
			if !isCorrupt(err) {
				return nil, err
			}
			s.log.Error("a checkpoint is damaged", "checkpoint", name, "err", err)
			s.cat.m[name] = &catalogEntry{
				Checkpoint: Checkpoint{Name: name, Generation: fr.generation}, err: err, open: new(int),
			}
			continue
		}
		e := entryOf(r)
		s.cat.m[name] = e
		if k.known {
			s.log.Info("rolled forward", "checkpoint", name)
		}
		row, err := e.row()
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	for name := range k.roots {
		if _, ok := f.roots[name]; !ok {
			rows = append(rows, row{key: checkpointKey(name)})
		}
	}
	return rows, nil
}

// recoverPacks indexes packs that the index does not know, and removes those that nobody needs.
func (s *Store) recoverPacks(ctx context.Context, f *found, k *indexed) (rows []row, err error) {
	referenced, sure := s.cat.referenced()
	stale := false
	for _, number := range sortedKeys(f.packs) {
		info := f.packs[number]
		if k.packs[number] == info {
			continue
		}
		_, known := k.packs[number]
		_, needed := slices.BinarySearch(referenced, number)
		switch {
		case !known && !needed && sure && s.keys != nil:
			s.log.Info("removing what an interrupted import left", "pack", number, "bytes", info.bytes)
			if _, err := s.packs.doom(ctx, number); err != nil {
				return nil, err
			}
			stale = true
			continue
		case known:
			stale = true // it was compacted: pages that the index knows may be gone
		case s.keys != nil:
			if err := s.indexPack(ctx, number); isCorrupt(err) {
				s.log.Error("a pack is damaged", "err", err)
			} else if err != nil {
				return nil, err
			}
		}
		rows = append(rows, packRowOf(number, info))
	}
	for number := range k.packs {
		if _, ok := f.packs[number]; !ok {
			rows = append(rows, row{key: packKey(number)})
			stale = true
		}
	}
	if stale {
		rows = append(rows, row{metaKey(metaStale), []byte{1}})
	}
	return rows, nil
}

// indexPack puts the pages and nodes of a pack into the index.
func (s *Store) indexPack(ctx context.Context, number uint64) error {
	e, err := s.packs.pin(ctx, number)
	if err != nil {
		return err
	}
	defer s.packs.unpin(e)
	p := e.acquire()
	defer p.release()
	hashes, err := p.Hashes()
	if err != nil {
		return err
	}
	rows := make([]row, 0, len(hashes))
	for slot, h := range hashes {
		if !p.Dead(uint32(slot)) {
			key := pageKey(h)
			rows = append(rows, row{key[:], refValue(uint64(pack.MakeRef(number, uint32(slot))))})
		}
	}
	hasher := pack.NewHasher(s.key)
	for i := range p.Records() {
		info := p.Record(i)
		if info.Stored == 0 || info.Kind != kindLeaf && info.Kind != kindBranch {
			continue
		}
		code, err := p.ReadRecord(i, nil)
		if err != nil {
			return err
		}
		if h, ok := nodeHash(hasher, info.Kind, code); ok {
			ref := uint64(pack.MakeRef(number, uint32(i)))
			rows = append(rows, row{nodeKey(h), binary.BigEndian.AppendUint64(nil, ref)})
		}
	}
	sortRows(rows)
	if err := s.keys.update(rows); err != nil {
		return fmt.Errorf("index pack %d: %w", number, err)
	}
	return ctx.Err()
}

// nodeHash names a node by its content. Leaves that are a difference from another are found by
// nobody, and have no name.
func nodeHash(h *pack.Hasher, kind uint32, code []byte) (pack.Hash, bool) {
	if len(code) == 0 || kind == kindLeaf && code[0] != leafFull {
		return pack.Hash{}, false
	}
	sum := h.Sum(code)
	// A leaf and a branch of the same bytes are not the same node.
	sum[0] ^= byte(kind)
	return sum, true
}

func isCorrupt(err error) bool {
	var c *CorruptError
	var v *pack.VersionError
	return errors.As(err, &c) || errors.As(err, &v) || errors.Is(err, blob.ErrNotFound)
}
