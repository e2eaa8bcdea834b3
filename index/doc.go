// Package index is the store: many checkpoints of virtual machines in little space, and one page of
// any of them in a few microseconds.
//
// # What is where
//
// A store is a directory:
//
//	thaw-store.json           magic, version, default profile, the key of the page hashes and its checksum
//	packs/0000000007.0.pack   pages, nodes of page maps, parts of files, segments
//	checkpoints/NAME.0.ckpt   one root a checkpoint
//	numbers/0000000064        pack numbers below this one may be in use
//	index/                    Badger: hints, all of which can be made again
//	index.damaged-TIME/       an index that failed
//	write.lock                held (flock) by the one process that writes to the store, and its keeper
//	wanted.lock               held, shared, by each process that waits for write.lock
//	lock                      held (flock) by the one process that serves it
//
// A store can be sealed (package seal). Then thaw-store.json has version 2 and no key of hashes, and packs,
// roots and the index are encrypted: what follows is what one sees who has the key. The names of files in
// checkpoints/ are sealed, and sizes in listings those of the content.
//
// Packs and roots are blobs (package blob): written once, never changed, there whole or not at all.
// Both have the format of package pack. The number after the first dot is a generation: the highest
// one counts, unless it is damaged, or another pack than the roots mean, and an older one is still
// there. Of a pack readers take the lowest one: the older one goes when the newer one was read back.
// Pack numbers begin with 1 and are never used again: a blob in numbers/ reserves some of them at a
// time, and is durable before the first of them is used.
//
// A page of 4096 bytes has a ref: pack number<<24 | slot, the slot being its ordinal in the pack. A
// page of zeros has ref 0 and is stored nowhere. Any other page is stored once, however many
// checkpoints have it and how often: it is identified by a keyed hash of 128 bits, which its pack
// has. The one exception is the segment of a working set (below), which has copies.
//
// # The page map
//
// The page map of a checkpoint says where each of its pages is stored. It is a tree of fixed height
// whose nodes are records in packs. A node has a ref like a page: pack number<<24 | number of the record.
//
//	leaf     2 MiB of guest memory: the refs of 512 pages
//	branch   1 GiB: its 512 leaves
//	top      the branches; it is in the root
//
// Nodes never change, and are shared: by checkpoints where they are equal, found by their hash. So
// a second checkpoint of a machine costs its changed pages, the leaves around them, and a branch
// for each GiB that has any. A leaf that differs little from one of the parent's (see below) is
// stored as the difference. A leaf whose code is short, as for most leaves of a new image, is
// stored in its branch. Zero pages cost almost nothing on every level: 1 TiB of holes takes some bytes.
//
// Lists of refs are coded as runs:
//
//	refs    = run...                      their number is known (512 in a leaf)
//	run     = varint((count-1)<<2 | op), then for every op but 0 a varint arg
//	op 0    count times ref 0
//	op 1    count refs, ascending by one from near + unzigzag(arg)
//	op 2    the same from other + unzigzag(arg); near and other change places first
//	op 3    the same from arg; near becomes other first
//
// where near is the ref that would continue the last run, and other the one that would continue the
// last run in another pack; both begin with 0. zigzag is that of protocol buffers, varints are unsigned
// LEB128.
//
//	leaf    = 0, refs                     all of it
//	        | 1, varint base, diff        like the full leaf in node base, but for diff: refs in
//	                                      which 0 is "as in base" and 1 is "zero"
//	branch  = refs, inline...             a ref of 0 is a leaf of zeros; a ref i below 1<<24 is
//	                                      the i-th inline leaf; others are the leaf's node
//	inline  = varint length, leaf
//	top     = 1, varint pages, refs of the branches, varint number of the segment's pack (0: none),
//	          varint n, n gaps of ascending pack numbers: every pack that is referred to
//
// # The root
//
// A root is a pack with number 1<<40 - 1, and records only: the manifest (JSON: the Checkpoint, and
// where the parts of its files lie), the top of the page map, the runs of the working set (varint
// n, then zigzag gap and count - 1 for each), when they are wanted, and parts of small files. Files are
// cut into parts of 256 KiB; the ref of a part that is stored in the root itself has the root's pack
// number. The kinds of records are constants in tree.go; a reader skips those that it does not know.
//
// When a working set is wanted is told for its parts of 256 pages, as its segment has them in its frames,
// and behind the segment's last one the rest: 1, varint n, then varint pages and zigzag microseconds since
// the last part's for each; n is 0 if the set has no times. It saves reading the text of the set. A root
// without that record, or with one that is damaged or malformed or begins with another number, is as good.
//
// The manifest also has the identities of the packs that the map lists (pack_ids, in the order of that
// list, 16 hexadecimal digits each), because two stores, or a store and its copy, use the same numbers for
// different packs. A pack has its identity in all its generations (package pack). Wherever a root's packs
// are opened, one that has another identity counts as damaged: its pages are errors whose cause is
// [ErrOtherPack]. An empty string, or no pack_ids at all, means that the identity is not known, and is not
// compared: so it is in stores of older programs, and of their packs in newer roots. A new root has the
// identities that its packs have when it is written; a new generation of a root keeps those of the old one.
// After a repacking that has made a new generation it says since which one the working set is the same
// (set_generation).
//
// The root is written last, by one atomic step of the blob store: from this moment the
// checkpoint exists. What an abandoned import wrote before is garbage that no reader sees.
//
// # Writers and readers
//
// A store is opened by one process at a time for writing ([Open]), and by any number for reading
// (OpenOptions.ReadOnly), at the same time: a mounted server is a reader. A reader takes no lock, has
// no index, and writes nothing, so that it works on a read-only file system. It lists the blobs and
// reads the roots; [Store.Refresh] does so again to find new ones. What it has open stays the same:
// blobs never change, and one that a writer removes can be read as long as it is open. If a blob is gone
// before it is opened, the reader lists the blobs again and retries, a few times. Opening a store costs
// the listing and one small read for each checkpoint: a tenth of a second for a thousand.
//
// An image keeps all its packs open, but not always a descriptor for each: see package blob. Walks over the
// whole store (check, gc) keep a bounded number open, because of the memory that an open pack takes.
// Files that root makes in the store of another user are given to that user, so that a server which runs as
// the owner can read them.
//
// A name alone identifies nothing: it may belong to another checkpoint a moment later. A root counts as
// known only while name, generation, size and the identity of its blob are the same (blob.Info.Tag),
// and [Store.OpenFileOf] and [Store.OpenImageOf] compare what they open with the ID that the caller has
// seen.
//
// # Two layouts
//
// Pages lie in packs in locality blocks of 16, which one read brings. New pages are stored in groups
// (ImportOptions.Order): first used pages, for each vCPU in the order of first touch; then the pages of
// each address space, in virtual order; then the pages of no group, by guest frame number. No block has
// pages of two groups. Layout says "trace", "virtual" or "physical". A block keeps its slots for good.
//
// When a pack is written again, cold pages of it may move into clusters (pack.TierCold): 16 pages that are
// like one another, compressed together. A cluster is to its pages what a block is to others: it is read and
// decoded at once, so [Image.Block] returns it, and many pages are read in the order in which they lie
// (pack.Spots), cluster by cluster. Refs do not change. A caller that reads one page of a cluster can keep
// the others: [Image.ReadCluster].
//
// A working set is also copied into a segment, a pack of frames of 1 MiB in first-touch order,
// which a restore reads from end to end. Those of its first 128 MiB are quick to decode. A segment has
// at most a quarter of the image's pages, or 64 MiB; it is deleted when another one replaces it.
//
// # The path of a page
//
// [Store.OpenImage] reads the page map into RAM (8 bytes for a page that is not zero, and 8 more
// to find a page by where it lies) and opens the packs (8 bytes for each of their pages). Then
// [Image.ReadPage] finds the page in the map, takes the open pack, and does one pread, one checksum and
// one decoding, of a unit or a cluster. It takes no lock, allocates nothing, and does not use Badger.
//
// On a high-latency medium (blob.Medium: another machine, a spinning disk) reads are fewer and larger. A
// page is read together with its block or cluster and those beside it, as many as add little time to the
// read, and they are kept for a while for their other pages (blockCache). Records of page maps are read
// ahead, and roots are kept. Feeds are fetched in order, whichever goroutine decodes them.
//
// # Import
//
// Chunks of 1 MiB are read and hashed in parallel; one goroutine takes their pages in order (groups
// first, then the rest). It finds each page in the parent, in what this import stored, or by the index,
// or assigns the next slot to it; blocks of 16 new pages are compressed in parallel and appended in
// order. An import is to be quick: by the default profile, too, it stores units that are quick to make and
// to read (pack.NewImportEncoder). The disk is given the packs while they are written, and what the index
// has to know is left to the packs. The parent is the checkpoint of the same size that has most pages of a
// sample at the same places, of those few that are likely to be of the same machine: that list the packs in
// which the index finds the sample. The choice affects only the speed and the size of leaves.
//
// # The index
//
// Badger maps hashes to refs, of pages and of nodes, and has a list of the packs that it has indexed: to read
// this from the blobs would take long in a large store. Only imports use it, for a chunk of pages at a time,
// and it is opened when it is first needed. An import does not write to it: the newest packs, up to 128 with
// four million pages, are the tail (hintstail.go). An import that needs their hashes reads them from the
// packs, and keeps them in memory. When they are more, all of them are put into Badger at once, by the next
// import, and by every gc. So a store with few pages has no Badger index. All of this is only hints: a row
// may point to a page that is gone, so its user compares the hash of what it finds. A page that is not found
// is stored again. The list of checkpoints is always read from the roots. The keys are in keys.go.
//
// Badger writes through shared mappings, so a full disk or quota causes a SIGBUS, and a damaged byte
// in its files may cause a panic in one of its goroutines. So commands do not open it: a keeper does,
// a child process (OpenOptions.Keeper, [KeeperMain]) that only answers questions over a pipe, in
// values of package gob. It inherits the writers' lock, so that no other command opens the index
// before it has ended. It ends when its parent does, ignores signals of the terminal, and must answer
// within a minute.
//
// What Badger takes does not grow with the index, but for pages of mapped files, which the kernel takes back:
// its tables have half a MiB on all levels, and few may wait on the first one (badgerkeys.go).
//
// A failure of the index (it cannot be opened, dies, hangs, answers nonsense, fails to close) is never an
// error of an import. The directory is set aside as index.damaged-TIME, one at most, and another index is
// made from the packs: that reads their hashes and nodes, about a hundredth of their bytes. If that fails
// too, because the disk is full or has no inodes or no shared mappings, an index in memory serves this
// command (at most about 100 MiB; in a store with more than 16 GiB of pages it does not know the older
// packs). All of this is logged. See hints.go.
//
// # Garbage
//
// [Store.GC] walks all roots and deletes packs that none of them lists. A pack of which a fifth is dead
// is rewritten as its next generation, with the same slots and blocks; dead slots are empty then. Clusters
// with dead pages are made anew of the live ones. So
// nothing that refers to it changes, and open images go on reading what they opened. What an interrupted
// import left is garbage like any other: opening a store deletes no pack. If any root cannot be read,
// nothing is collected.
//
// Rows of the index that point to what was deleted go when there are many: a sweep looks at every row.
//
// The walk goes through each node once, however many checkpoints share it. Before anything is
// deleted, an audit (audit.go) checks the result in another way. It reads again every root that lists a
// pack which will be deleted or rewritten, loads its page map as an image does, independently of all
// other roots, and must find every page, node and part of a file among those that are kept. Otherwise
// the error is a [LivenessError], and nothing was deleted.
//
// # Repacking
//
// An import is quick, and stores each page so that it can be read alone, because nobody knows yet which
// pages will be wanted. [Store.Repack] finds out how pages are used, over all checkpoints:
//
//	hot    in the working set of a checkpoint
//	warm   in the block of a hot page, or asked for in a restore (RepackOptions.Seen)
//	cold   all others
//
// and writes packs again so that they are stored by that (pack.Tier). That a page does not compress is a
// reason to leave it where it is. What the pages of a pack are is worked out anew each time, from the roots;
// how they are stored its directory says, and of a whole checkpoint the footers of its packs say it about
// ([Store.Packed]). Nothing else is kept, so nothing can disagree. Segments and roots are left alone.
//
// A pack is written again if that saves a thirty-second of it: the dead pages, and what clusters save of the
// cold ones, which is tried out on a dozen clusters all over the pack; or if of its live pages one of 256 is
// in a cluster and should not be. What saves most comes first. That hot pages are not quick to decode yet is
// no reason by itself. So a second Repack does nothing, and one after a working set was set, replaced or
// removed moves pages. A cluster that takes no less than its pages did is not made. A pack of 65,536 pages
// takes some 150 MiB of memory while it is written; beside that there are three bits for each page of the
// store.
//
// When a machine is saved again, most of the pages that changed have changed a little, but they lie in
// another pack than their former content. So before packs are looked at, the versions that the checkpoints
// of a machine have of their cold pages are brought together: they are copied into a new pack and clustered
// there, and each checkpoint that refers to one of them gets a new generation of its root, with the same
// ID, whose page map refers to the copy (gather.go). That is done where at least 256 pages come to a
// version that is like them. Which versions belong together depends on the checkpoints only: of a page
// those at one place of the image, the first at which it has versions; up to 8 of them, because all are
// copied again when one more comes. What they were copied from is dead then, and goes where it is a 1024th
// of its pack. A pack that most pages were copied from is given up, with the rest of its pages and its
// nodes copied, too, unless it has parts of files. A page that has changed a little takes about what "zstd
// -3 --patch-from" makes of it and its former content (BenchmarkNext). No pack depends on another. The new
// pack is durable and was read back before the first root refers to it, and before each root is replaced
// its two page maps are compared, page for page, by refs and by the hashes that packs have. A crash leaves
// some roots with the old and some with the new place of a page, both of which are there. Such a pack has
// 16,384 pages at most. One that was finished, and to which no root refers yet, is read by the next
// repacking, if no gc comes between: a family that all lies in it need not be copied again (orphans.go).
// A repacking that is told to end also finishes the pack that it is filling. Of a machine with many
// checkpoints some dozens that follow one another are looked at side by side, as many as may have their
// packs open.
//
// It shares with gc the walk, the audit of what is dropped, and the next generation; before that takes the
// place of the old one, everything in it is read, and each page compared with the hash that the old one has
// for it. A crash at any time leaves the one or the other: a process that opens the store for writing and
// finds both reads the new one, and goes back to the old one if there is damage in it. Rows of the index are
// not touched: those of dropped pages go with the next gc.
//
// Repacking a store takes long. A caller may do one pack at a time (RepackOptions.Most), close the store in
// between, and take along what was found out (RepackMemory): live pages only become more, unless a checkpoint
// was removed or replaced; then all is found out again. With OpenOptions.Yield it ends in the middle of a
// pack, which stays as it was, as soon as another process waits for write.lock ([WriterWaits]); that process
// waits until it has ended, also for longer than its own OpenOptions.Wait says. The process that repacks
// beside a server makes room for all, the command "thaw repack" for all that do not repack.
//
// # Damage
//
// Bytes that are damaged, missing, dead, or of the wrong kind cost the pages in them and no others. So
// does a pack in the place of another one of its number. Nothing is shared with it, gc does nothing while
// it is there, and repair does not rewrite it: it ends when the right pack is put back.
// [Image.ReadPage] fails for such a page. Methods that read many pages return the good ones and name the
// bad ones in a [PagesError]. If a segment is damaged, its pages are read from their blocks. Damage in a root
// costs the file or the working set that lies there; damage of its manifest or of the top of the page map
// costs the checkpoint. A root is not written again while a file is damaged in it that would be lost by that.
//
// Export, gc, repack, check with ReadData, and repair compare every page that they move or copy with the hash
// that its pack has for it, also the pages of segments. An export of a damaged checkpoint leaves nothing,
// or with Salvage a directory that cannot be taken for a checkpoint: memory.salvaged, files with holes as
// NAME.salvaged, and holes.json ([Holes]). An export is written in .thaw-export-* beside its target,
// under a lock; the next export there removes such a directory if it is not locked.
//
// [Store.Check] says what it has checked, and which damage costs a checkpoint something. With Repair it
// restores pages whose packs still have their hashes, which stay when a page is damaged or dropped. Any
// bytes with the right hash are the page; it looks for them in other packs, in segments, and in exports.
// The pack is rewritten as its next generation, which is read back before it replaces the old one; pages
// that were not found are dead in it. Damaged hashes are computed again from the pages, if the checksum
// over them then matches. A damaged segment is made again. A damaged root, directory or record stays
// damaged.
//
// # Invariants
//
//   - A blob that a root needs is durable before the root is.
//   - A root lists every pack that is needed for it. A listed pack is not removed, and a slot or
//     record that is referred to from a root is kept by every compaction.
//   - Bytes are returned only after their checksum, which is salted with their place, was found right.
//     A read returns the imported bytes or an error, never anything else.
//   - Import, GC, Repack, Check and SetWorkingSet of one Store exclude one another (Store.writer), and so do
//     Stores that are open for writing (write.lock). Reading excludes nothing and waits for nothing.
//   - Only space and speed depend on the index: it decides neither what exists nor what is deleted.
package index
