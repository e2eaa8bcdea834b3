// Package fs serves the checkpoints of a store as plain files on a FUSE mount, so that whatever can
// map a file as guest memory restores from it: opening memory brings the machine's working set into
// the page cache, the rest comes at its first touch.
//
//	store, err := index.Open(ctx, dir, index.OpenOptions{})
//	srv, err := fs.Mount(ctx, fs.NewStore(store), "/mnt", fs.Options{})
//	srv.Wait()
//
// # The tree
//
//	NAME/memory            the image, read-only; opening it is the request to restore
//	NAME/state, …          the files that were saved beside it, as they are
//	NAME/working-set       (one of those files)
//	NAME/info.json         what the store knows of the checkpoint
//	NAME/stats.json        counters since the image was last cold: see Stats
//	NAME/clones/ID/…       the same for one machine alone, for any ID: its memory has its own inode
//	                       and page cache and can be opened for writing
//	.thaw/metrics, socket  the server's totals in Prometheus' format; where it takes commands
//
// Directories and attributes never change while they have their inode number, so the kernel may
// keep them for an hour; Refresh tells it of names that come and go.
//
// # Processes
//
// The process that serves a mount must never use that mount: a goroutine that faults on a mapping
// cannot be stopped for a collection, the collection waits for it, and the handler that would
// answer the fault waits for the collection. Then not even SIGKILL helps; Abort does. So the VMM is
// always another process, and so is the Prober.
//
// # One page fault
//
// The kernel sends READ; go-fuse calls raw.Read on one of its reader goroutines.
//
//  1. tree.node finds the node by its number, under a lock held for a map access.
//  2. readMemory notes the pages as in flight, the stall as begun, first touches as such
//     (epoch.read), and reads the page with Memory.ReadPage into go-fuse's buffer.
//  3. The reply goes out; reply.Done runs after that. The pages are now resident and no longer in
//     flight, the stall is over, and what lies beside the page in its locality block, or ahead of a
//     sequential reader, becomes a job for the pushers if there is room in their queue.
//
// This path allocates nothing, waits for no lock that is held over I/O or over a push (where reads
// are dear it may wait for another READ of the same block, see index), and does not let itself be
// interrupted: a signal to a vCPU must not become a SIGBUS. Errors are EIO, for exactly the pages
// that cannot be read.
//
// The mount negotiates a readahead of 4096 bytes. So a fault is one READ of 4 KiB whether or not
// the VMM gives MADV_RANDOM, which makes the record exact, while read(2) with a large buffer still
// gives READs of 128 KiB. A VMM that asks for huge pages (MADV_HUGEPAGE, as QEMU does) is the
// exception: Linux then reads 2 MiB around each fault, and the record has more than was touched.
//
// # One restore
//
// OPEN of memory calls restore, which joins the flight that is under way or starts one: a goroutine
// of the server, on which any number of opens wait. A flight has goroutines fetch the pieces of the
// working set's feed in their order, one at a time or as many as the medium likes; Options.Workers
// of them at a time decode, and push (NOTIFY_STORE) in one notification for each run of
// neighbouring pages. When all is there, or a cap is reached, the opens return; the rest of a
// capped flight goes on as its tail and steps aside while READs are outstanding. When the last file
// is closed, the tail ends.
//
// An open that comes later asks the Prober how many pages are still in the page cache (cachestat,
// in another process, whose own open is answered at once). If none was lost, it returns; else, or
// if nobody can say, everything is pushed again, which over pages that are there costs a copy.
//
// # Who may wait for whom
//
// A push of a page whose READ is in flight waits until that READ is answered: the page is locked.
// Hence what all of this is built around:
//
//   - READs never push. Only flights and pushers do.
//   - Whoever pushes holds no lock that a READ could take. memory.gate is held over pushes; drops
//     take its other side, READs do not know it.
//   - Decoding is not shared by locks: a page that a READ wants and a flight is decoding at the
//     same moment is decoded twice.
//   - Pushers go round pages in flight, because waiting for them in turn is a convoy: slow READs
//     just ahead of a push have made 30 ms into 4 s. The small window between looking and pushing
//     costs at most that one READ's time.
//
// # Cold, recorded, counted
//
// An epoch is the life of an image from one cold page cache to the next: it begins with the mount,
// with Drop, and with StartRecord. It has the stalls and the trace of first touches, over the
// image's own file and all clones. A memory file has a session in it, with its counters and its
// sets of pages. READs and pushers keep the session they began with, and a push into a session that
// is over is refused (errStale), so a drop has nothing to wait for but pushes under way.
//
// The trace is exact as long as nothing is pushed. So for an image without a working set nothing
// is, from its first open on until Options.RecordWindow is over; the same after StartRecord,
// whatever the policy. Record refuses what is not exact (ErrNotCold).
//
// # Clones
//
// One shared mapping that is written to would change the image under every machine, as the page
// cache is one. So memory itself cannot be opened for writing. A clone can, for VMMs that insist;
// private mappings of it just work. A WRITE that reaches the server was made through a shared
// mapping or by write(2): it is refused, the clone is poisoned (EIO from then on), and its page
// cache dropped from another goroutine, since the WRITE has a page of it locked.
//
// # Death
//
// Nothing but the server has /dev/fuse open (it is close-on-exec, which go-fuse's own direct mount
// is not), so a server that is killed ends the connection: waiting READs and every page not in the
// page cache are errors at once. Abort does the same to a server that hangs.
//
// The server keeps nothing that the kernel would have to remember for it: node numbers are hashes
// of content, memory files have file handle 0, opening twice is opening once. That is what lets
// another process take over a connection; so far nothing does. Only the numbers of clones cannot be
// computed by another process and would have to be handed over.
package fs
