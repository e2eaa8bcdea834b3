// Package index is the store: many checkpoints of virtual machines in little space, and one page of
// any of them in a few microseconds.
//
// # What is where
//
// A store is a directory:
//
//	thaw-store.json           magic, version, default profile, the key of the page hashes
//	packs/0000000007.0.pack   pages, nodes of page maps, parts of files, segments
//	checkpoints/NAME.0.ckpt   one root a checkpoint
//	numbers/0000000064        pack numbers below this one may be in use
//	index/                    Badger: hints, all of which can be made again
//	index.damaged-TIME/       an index that failed
//	write.lock                held (flock) by the one process that writes to the store, and its keeper
//	lock                      held (flock) by the one process that serves it
//
// Packs and roots are blobs (package blob): written once, never changed, there whole or not at all.
// Both have the format of package pack. The number after the first dot is a generation: the highest
// one counts, unless it is damaged and an older one is still there. Pack numbers begin with 1 and are
// never used again: they are reserved, some at a time, by a blob in numbers/ that is durable before
// the first of them is used.
//
// A page of 4096 bytes has a ref: pack number<<24 | slot, the slot being its ordinal in the pack. A
// page of zeros has ref 0 and is stored nowhere. Any other page is stored once, however many
// checkpoints have it and how often: it is known by a keyed hash of 128 bits, which stands in its
// pack. The one exception is the segment of a working set (below), which has copies.
//
// # The page map
//
// What a checkpoint has where is a tree of fixed height, whose nodes are records in packs. A node
// has a ref like a page: pack number<<24 | number of the record.
//
//	leaf     2 MiB of guest memory: the refs of 512 pages
//	branch   1 GiB: its 512 leaves
//	top      the branches; stands in the root
//
// Nodes never change, and are shared: by checkpoints where they are equal, found by their hash. So
// a second checkpoint of a machine costs its changed pages, the leaves around them, and a branch
// for each GiB that has any. A leaf that differs little from one of the parent's (see below) is
// stored as the difference. A leaf whose code is short, as it is for most leaves of a fresh image,
// stands in its branch. What is zero costs next to nothing on every level, so that 1 TiB of holes
// takes some bytes.
//
// Lists of refs are coded as runs:
//
//	refs    = run...                      as many as are known to be there (512 in a leaf)
//	run     = varint((count-1)<<2 | op), then for every op but 0 a varint arg
//	op 0    count times ref 0
//	op 1    count refs, ascending by one from near + unzigzag(arg)
//	op 2    the same from other + unzigzag(arg); near and other change places first
//	op 3    the same from arg; near becomes other first
//
// where near and other are what would have continued the last run and the one before it in another
// pack; they begin with 0. zigzag is that of protocol buffers, varints are unsigned LEB128.
//
//	leaf    = 0, refs                     all of it
//	        | 1, varint base, diff        like the full leaf in node base, but for diff: refs in
//	                                      which 0 is "as in base" and 1 is "zero"
//	branch  = refs, inline...             a ref of 0 is a leaf of zeros; a ref i below 1<<24 is
//	                                      the i-th inline leaf; others are the leaf's node
//	inline  = varint length, leaf
//	top     = 1, varint pages, refs of the branches, varint number of the segment's pack (0: none),
//	          varint n, n gaps of ascending pack numbers: every pack that anything refers to
//
// # The root
//
// A root is a pack with number 1<<40 - 1, and records only: the manifest (JSON: the Checkpoint, and
// where the parts of its files lie), the top of the page map, the runs of the working set (varint
// n, then zigzag gap and count - 1 for each), and parts of small files. Files are cut into parts of
// 256 KiB; the ref of a part that stands in the root itself has the root's pack number. The kinds
// of records are constants in tree.go; a reader skips those that it does not know.
//
// The root is written last, by one atomic step of the blob store: that is the moment from which the
// checkpoint exists. What is written before and then abandoned is garbage that nobody sees.
//
// # Writers and readers
//
// A store is opened by one process at a time for writing ([Open]), and by any number for reading
// (OpenOptions.ReadOnly), at the same time: a mounted server is a reader. A reader takes no lock, has
// no index, and writes nothing, so that it works on a file system that can only be read. It lists the
// blobs and reads the roots; [Store.Refresh] does so again, for what is new. What it has open stays
// what it was: blobs never change, and one that a writer removes can be read as long as it is open.
// Where something is gone when it is to be opened, the reader lists anew and tries again, a few times.
// Opening costs the listing and one small read for each checkpoint: a tenth of a second for a thousand.
//
// An image holds each pack that it lies in open, a descriptor a pack. Walks over the whole store (check,
// gc) hold a bounded number. What root makes in the store of another user is given to that user, so
// that a server which runs as the owner can read it.
//
// A name alone says nothing: between two looks it may get another checkpoint. A root counts as known
// only while name, generation, size and the identity of its blob are the same (blob.Info.Tag), and
// [Store.OpenFileOf] and [Store.OpenImageOf] compare what they open with the ID that the caller has
// seen.
//
// # Two layouts
//
// Pages lie in packs in locality blocks of 16, which one read brings. New pages are stored in
// groups (ImportOptions.Order): those that were seen to be used, by the vCPU that used them, in the
// order of first touch; then by address space, in virtual order; and what no group has by guest
// frame number. No block has pages of two groups. Layout says "trace", "virtual" or "physical". A
// layout is for good: a working set that is set later does not move pages.
//
// A working set is also copied into a segment, a pack of frames of 1 MiB in first-touch order,
// which a restore reads from end to end. A segment has at most a quarter of the image's pages, or
// 64 MiB; it is dropped when another takes its place.
//
// # The path of a page
//
// [Store.OpenImage] reads the page map into RAM (8 bytes for a page that is not zero, and 8 more
// for the way back from slot to page) and opens the packs (8 bytes for each of their pages). Then
// [Image.ReadPage] is: the map's place for the page, the open pack, one pread, one checksum, one
// decoding. No lock, no allocation, no Badger.
//
// Where a read is dear (blob.Medium: another machine, a spinning disk) fewer and larger ones take
// its place: a page comes with its block and those beside it, as many as add little to what a read
// takes in any case, and they are kept a while for their other pages (blockCache); records of page
// maps are read ahead, and roots are remembered. Feeds are fetched in order, whoever decodes them.
//
// # Import
//
// Chunks of 1 MiB are read and hashed in parallel; one goroutine takes their pages in order (groups
// first, then the rest), and finds each in the parent, in what this import stored, or in the index,
// or gives it the next slot; blocks of 16 new pages are compressed in parallel and appended in
// order. The parent is the newest checkpoint of the same size that has most of a sample of pages at
// the same places. Nothing depends on the choice but speed and the size of leaves.
//
// # The index
//
// Badger holds what would take long to find out from blobs: where the page with a hash is, and the
// same of nodes; and which packs it has that of. It is asked by imports only, a chunk of pages at a
// time, and opened when it is first needed. It is hints, and nothing but hints: rows may point to what
// is not there any more, and who follows one compares what is found with the hash. What is not found
// is stored again. Which checkpoints there are is read from the roots, always. The keys are in keys.go.
//
// Badger writes through shared mappings, where a full disk or quota is a SIGBUS, and a byte of its
// files that is not what it was may be a panic in a goroutine of its own. So commands do not open it:
// a keeper does, a child process (OpenOptions.Keeper, [KeeperMain]) that does nothing but answer
// questions over a pipe (keeperwire.go). It inherits the writers' lock, so that no other command comes
// near the index before it has ended; it ends when its parent does; it leaves signals of the terminal
// to that; an answer has a minute.
//
// Whatever goes wrong with it, at any time (it cannot be opened, dies, hangs, answers nonsense, does
// not close well) is never an error of an import. The directory is set aside as index.damaged-TIME,
// one at most; another index is made from the packs, which means reading their hashes and nodes, about
// a hundredth of them; and if that fails too, because the disk is full or has no inodes or no shared
// mappings, one in memory serves this command (about 100 MiB at most; of older packs in a store of
// more than 16 GiB of pages it then knows nothing). All of that is said in the log. See hints.go.
//
// # Garbage
//
// [Store.GC] walks all roots, deletes packs that none lists, and writes those of which a fifth is
// dead again as the next generation: the same slots and blocks, the dead ones empty. So nothing
// else needs to change, and open images go on reading what they opened. What an interrupted import
// left is garbage like any other: opening a store deletes no pack. While any root cannot be read,
// nothing is collected.
//
// The walk goes through each node once, however many checkpoints share it. Nothing is deleted on its
// word alone: before, a second look (audit.go) reads every root anew that lists a pack which is to
// go or to be written again, loads its page map as an image does, without knowing what was seen in
// any other, and finds every page, node and part of a file among what is to be kept. If it does not,
// that is a [LivenessError], and nothing was deleted.
//
// # Damage
//
// What is damaged, missing, dead, or of another kind than its reader wants costs the pages in it and
// no other. [Image.ReadPage] fails for such a page. Whatever reads many pages gives the good ones and
// names the bad ones in a [PagesError]. A working set is read from where its pages lie where its
// segment is damaged.
//
// Whatever moves a page or copies it out compares it with the hash that its pack has for it: export,
// gc, check with ReadData and repair; the pages of a segment are compared with the same hashes. An
// export of anything damaged leaves nothing, or with Salvage a directory that cannot be taken for a
// checkpoint: memory.salvaged, files with holes as NAME.salvaged, and holes.json ([Holes]). An export
// is written in .thaw-export-* beside its target, under a lock; one without is swept by the next.
//
// [Store.Check] says what its verdict covers, which damage costs a checkpoint something and which
// none. With Repair it brings back pages whose packs still have their hashes (they stay when a page
// is damaged or dropped): any bytes with that hash are the page, and are looked for in other packs,
// in segments, and in exports. The pack is written again as its next generation, which is read back
// before it takes the place of the other; what could not be found is dead in it. Hashes that are
// damaged are made again from the pages if the checksum over them says that they are right. A
// damaged segment is made again. A root, a directory or a record that is damaged stays so.
//
// # Invariants
//
//   - A blob that a root needs is durable before the root is.
//   - A root lists every pack that is needed for it. A listed pack is not removed, and a slot or
//     record that is referred to from a root is kept by every compaction.
//   - Bytes are handed out only after their checksum was found right, which is salted with their
//     place: an error, or the bytes that were imported, and never anything else.
//   - Import, GC, Check and SetWorkingSet of one Store exclude one another (Store.writer), and so do
//     Stores that are open for writing (write.lock); reading excludes nobody and waits for nobody.
//   - Nothing depends on the index but space and speed: it is neither asked what there is, nor what may
//     be deleted.
package index
