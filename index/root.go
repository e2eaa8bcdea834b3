package index

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// rootNumber is the pack number of every root: no pack of pages ever gets it. A part of a file with
// this pack number is a record of the root itself.
const rootNumber = pack.MaxNumber

const rootSuffix = ".ckpt"

// rootName is the blob name of a generation of a checkpoint's root.
func rootName(name string, generation uint32) string {
	return fmt.Sprintf("%s/%s.%d%s", rootsDirName, name, generation, rootSuffix)
}

// parseRootName is the inverse of rootName.
func parseRootName(blobName string) (name string, generation uint32, ok bool) {
	s, ok1 := strings.CutPrefix(blobName, rootsDirName+"/")
	s, ok2 := strings.CutSuffix(s, rootSuffix)
	dot := strings.LastIndexByte(s, '.')
	if !ok1 || !ok2 || dot < 0 {
		return "", 0, false
	}
	g, err := strconv.ParseUint(s[dot+1:], 10, 32)
	if err != nil || CheckName(s[:dot]) != nil || rootName(s[:dot], uint32(g)) != blobName {
		return "", 0, false
	}
	return s[:dot], uint32(g), true
}

// mapTop is the top of a page map: the branches, and every pack that it, the files or the segment
// refer to.
type mapTop struct {
	pages    uint64
	branches []uint64 // node refs by 1 GiB of guest memory; 0: all zero
	packs    []uint64 // numbers, ascending
	segment  uint64   // number of the segment's pack; 0: none

	// ids has the identities of the packs, by number, as far as they are known. They are in the manifest.
	ids map[uint64]uint64
}

const mapVersion = 1

func (t *mapTop) append(b []byte) []byte {
	b = append(b, mapVersion)
	b = binary.AppendUvarint(b, t.pages)
	b = appendRefs(b, t.branches)
	b = binary.AppendUvarint(b, t.segment)
	b = binary.AppendUvarint(b, uint64(len(t.packs)))
	last := uint64(0)
	for _, p := range t.packs {
		b = binary.AppendUvarint(b, p-last)
		last = p
	}
	return b
}

func parseMapTop(b []byte) (*mapTop, error) {
	if len(b) == 0 || b[0] != mapVersion {
		return nil, fmt.Errorf("%w: unknown version", errNode)
	}
	b = b[1:]
	next := func(max uint64) uint64 {
		v, w := binary.Uvarint(b)
		if w <= 0 || v > max {
			b = nil
			return 0
		}
		b = b[w:]
		return v
	}
	t := &mapTop{pages: next(maxPages)}
	if t.pages == 0 {
		return nil, fmt.Errorf("%w: number of pages", errNode)
	}
	t.branches = make([]uint64, branchesOf(t.pages))
	var err error
	if b, err = decodeRefs(b, t.branches); err != nil {
		return nil, err
	}
	for _, r := range t.branches {
		if r != 0 && r < 1<<24 {
			return nil, fmt.Errorf("%w: branch at %#x", errNode, r)
		}
	}
	t.segment = next(pack.MaxNumber)
	n := next(uint64(len(b)))
	last := uint64(0)
	for range n {
		d := next(pack.MaxNumber)
		if d == 0 || last+d >= rootNumber {
			return nil, fmt.Errorf("%w: list of packs", errNode)
		}
		last += d
		t.packs = append(t.packs, last)
	}
	if b == nil || len(b) != 0 {
		return nil, fmt.Errorf("%w: cut short or too long", errNode)
	}
	return t, nil
}

// manifest is the JSON in a root.
type manifest struct {
	Checkpoint
	FileParts map[string]fileParts `json:"file_parts"`
	// PackIDs are the identities of the packs that the map lists, in its order; see formatIDs.
	PackIDs []string `json:"pack_ids,omitempty"`
	// SetGeneration is the first generation with this working set, where that is known not to be the present
	// one.
	SetGeneration *uint32 `json:"set_generation,omitempty"`
}

// hasSetOf says whether the working set is that of another generation.
func (m *manifest) hasSetOf(generation uint32) bool {
	since := m.Generation
	if m.SetGeneration != nil {
		since = *m.SetGeneration
	}
	return since <= generation && generation <= m.Generation
}

// fileParts says where a file lies: parts of filePartSize bytes, the last one shorter.
type fileParts struct {
	Size  int64    `json:"size"`
	Parts []uint64 `json:"parts"` // pack<<24 | record
	Sum   string   `json:"sum"`   // hex of a hash over the hashes of the parts
}

// root is the content of a checkpoint's root, read whole.
type root struct {
	manifest
	top     *mapTop
	setRuns []Run          // the pages of the working set, in first-touch order
	dues    []Due          // when they are wanted; nil: not known, empty: known to be unknown
	records map[int][]byte // parts of files that the root itself has, by record
	bytes   int64          // size of the blob

	// Damage that costs no page of the memory: of parts of files, by record, and of setRuns, which are nil.
	lostParts map[int]error
	lostSet   error
}

// write makes the root a blob, in one atomic step; blob.ErrExists if the name is taken.
func (r *root) write(ctx context.Context, blobs blob.Store) (err error) {
	name := rootName(r.Name, r.Generation)
	w, err := newPackBlob(ctx, blobs, name, rootNumber, r.Generation)
	if err != nil {
		return err
	}
	defer w.Abort()
	for i := range len(r.records) {
		part, ok := r.records[i]
		if !ok {
			return fmt.Errorf("write %s: part %d of its files is missing", name, i)
		}
		if n, err := w.AppendRecord(kindFile, part); err != nil || n != i {
			return fmt.Errorf("write %s: part of a file: %w", name, err)
		}
	}
	r.PackIDs = formatIDs(r.top.packs, r.top.ids)
	doc, err := json.Marshal(r.manifest)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := w.AppendRecord(kindManifest, doc); err != nil {
		return err
	}
	if _, err := w.AppendRecord(kindMap, r.top.append(nil)); err != nil {
		return err
	}
	if len(r.setRuns) > 0 {
		if _, err := w.AppendRecord(kindWorkingSet, appendRuns(nil, r.setRuns)); err != nil {
			return err
		}
	}
	if r.dues != nil {
		if _, err := w.AppendRecord(kindDues, appendDues(nil, r.dues)); err != nil {
			return err
		}
	}
	r.bytes, err = w.Finish()
	return err
}

// readRoot reads a root whole.
func (s *Store) readRoot(ctx context.Context, name string, gen uint32) (*root, error) {
	return s.readRootRecords(ctx, name, gen, func(uint32) bool { return true })
}

// readRootBrief reads what the catalog needs of a root: not its files and not the working set, which
// can be long.
func (s *Store) readRootBrief(ctx context.Context, name string, gen uint32) (*root, error) {
	return s.readRootRecords(ctx, name, gen, func(kind uint32) bool {
		return kind == kindManifest || kind == kindMap
	})
}

// readRootRecords reads the records of a root whose kind is wanted.
func (s *Store) readRootRecords(ctx context.Context, name string, gen uint32, want func(kind uint32) bool) (
	*root, error,
) {
	blobName := rootName(name, gen)
	rd, err := openPackBlob(ctx, s.blobs, s.dec, blobName, rootNumber, gen)
	if err != nil {
		return nil, err
	}
	defer rd.Close()
	r := &root{records: map[int][]byte{}, bytes: rd.Size()}
	records := rd.NewRecordReader()
	for i := range rd.Records() {
		if !want(rd.Record(i).Kind) {
			continue
		}
		b, err := readRootRecord(rd, records, i)
		if isDamage(err) && r.without(i, rd.Record(i).Kind, err) {
			continue // a check reports it
		}
		if err != nil {
			return nil, err
		}
		if err := r.take(i, rd.Record(i).Kind, b); err != nil {
			return nil, &CorruptError{Pack: blobName, What: fmt.Sprintf("record %d", i), Err: err}
		}
	}
	if err := r.validate(name, gen); err != nil {
		return nil, &CorruptError{Pack: blobName, What: "content", Err: err}
	}
	return r, nil
}

// readRootRecord reads a record of a root. One that says that it is a part of a file, and is larger than
// any, is not decoded.
func readRootRecord(rd *pack.Reader, records *pack.RecordReader, i int) ([]byte, error) {
	if info := rd.Record(i); info.Kind == kindFile && info.Size > filePartSize {
		return nil, &CorruptError{Pack: rd.Name(), What: fmt.Sprintf("record %d", i),
			Err: fmt.Errorf("a part of a file has %d bytes", info.Size)}
	}
	return records.ReadRecord(i, nil)
}

// without notes that a record is damaged, if the memory can be read without it.
func (r *root) without(i int, kind uint32, why error) bool {
	switch kind {
	case kindFile:
		if r.lostParts == nil {
			r.lostParts = map[int]error{}
		}
		r.lostParts[i] = why
	case kindWorkingSet:
		r.lostSet = why
	case kindDues: // see take
	default:
		return false
	}
	return true
}

// whole says what of the root itself is damaged, so that it cannot be written again: what the blob still has
// of it would be gone for good.
func (r *root) whole() error {
	errs := []error{r.lostSet}
	for _, i := range sortedKeys(r.lostParts) {
		errs = append(errs, r.lostParts[i])
	}
	return errors.Join(errs...)
}

// take puts the content of one record into the root. It skips kinds that it does not know.
func (r *root) take(i int, kind uint32, b []byte) (err error) {
	switch kind {
	case kindFile:
		r.records[i] = b
	case kindManifest:
		err = json.Unmarshal(b, &r.manifest)
	case kindMap:
		r.top, err = parseMapTop(b)
	case kindWorkingSet:
		r.setRuns, err = parseRuns(b)
	case kindDues:
		// They come behind the runs. They only save time: without them the text is read.
		if r.lostSet == nil {
			r.dues, _ = parseDues(b, countPages(r.setRuns))
		}
	}
	return err
}

// validate checks that the parts of a root fit one another.
func (r *root) validate(name string, gen uint32) error {
	switch {
	case r.top == nil:
		return errors.New("there is no page map")
	case r.Name != name || r.Generation != gen:
		return fmt.Errorf("it says it is %s.%d", r.Name, r.Generation)
	case r.Format != Format:
		return fmt.Errorf("unknown format %q", r.Format)
	case r.MemoryBytes != int64(r.top.pages)*PageSize:
		return fmt.Errorf("memory of %d bytes, page map of %d pages", r.MemoryBytes, r.top.pages)
	}
	var err error
	if r.top.ids, err = parseIDs(r.top.packs, r.PackIDs); err != nil {
		return err
	}
	for f, p := range r.FileParts {
		if p.Size < 0 || int64(len(p.Parts)) != (p.Size+filePartSize-1)/filePartSize {
			return fmt.Errorf("file %q: %d bytes in %d parts", f, p.Size, len(p.Parts))
		}
	}
	for _, h := range r.setRuns {
		if h.GFN >= r.top.pages || h.Count > r.top.pages-h.GFN {
			return fmt.Errorf("working set: %d pages from %d on", h.Count, h.GFN)
		}
	}
	return nil
}

// refersTo says whether the root refers to a pack.
func (t *mapTop) refersTo(number uint64) bool {
	_, ok := slices.BinarySearch(t.packs, number)
	return ok
}
