// Package fs serves the checkpoints of a store as plain files on a FUSE mount, so that whatever can
// map a file as guest memory restores from it: opening memory brings the machine's working set into
// the page cache, the rest comes at its first touch.
//
//	store, err := index.Open(ctx, dir, index.OpenOptions{ReadOnly: true})
//	srv, err := fs.Mount(ctx, fs.NewStore(store), "/mnt", fs.Options{})
//	srv.Wait()
//
// # The tree
//
//	NAME/memory            the image, read-only; opening it is the request to restore
//	NAME/state, …          the files that were saved beside it, as they are
//	NAME/working-set       (one of those files)
//	NAME/info.json         the store's description of the checkpoint
//	NAME/stats.json        counters since the image was last cold: see Stats
//	NAME/mem, …            what the program that saved it calls its files: see below
//	NAME/clones/ID/…       the same for one machine alone, for any ID: its memory has its own inode
//	                       and page cache and can be opened for writing
//	.thaw/metrics, socket  the server's totals in Prometheus' format; where it takes commands
//
// Directories and attributes never change while they have their inode number, so the kernel may
// keep them for an hour (except the owner of a clone, see below); Refresh tells it of new and removed
// names. A lookup of an unknown name makes the server list the store again, in the background.
//
// A name alone is never trusted: images and files are opened by the ID that the tree has shown, and the
// open fails if the checkpoint was replaced since. One that was removed and is there again, with the
// same content, has the same inode numbers, and so is the same entry as long as the kernel knows one of
// them or a push or a drop goes on, which go to the kernel by number (keep.go). So is a clone that the
// kernel forgets and asks for again.
//
// # Names of other programs
//
// A store may give a checkpoint further names (Names), which NewNamedStore gets from its caller: this package
// knows no format. Other names of memory are links to it, so one inode, one page cache and one restore
// whatever a machine calls it, in clones too. Composed files are made of the memory and of stored files when
// they are read; they are opened with the image and closed with it. Reading one is no restore and no touch of
// a page: whoever reads it copies the machine, and the bytes are in the page cache of that file.
//
// # Holes
//
// lseek(2) with SEEK_DATA and SEEK_HOLE tells where memory has zero pages, and of a clone those that its
// machine discarded, as a sparse file of the same content does on a file system of 4 KiB blocks. It is
// answered from the page map, node by node, without I/O and without a lock that is held over I/O or a push.
// The kernel holds the inode's lock meanwhile, which no READ and no notification takes. The number of blocks
// (stat(2)) is that of the pages that are not zero: cp and tar ask for holes only where it is small.
//
// # Processes
//
// The process that serves a mount must never use that mount: a goroutine that faults on a mapping
// cannot be stopped for a collection, the collection waits for it, and the handler that would
// answer the fault waits for the collection. Then not even SIGKILL helps; Abort does. So the VMM is
// always another process, and so is the Prober. Functions that manage mounts from outside (Abort,
// FindMount, Users, the check of a mount point) use only the table of mounts and /proc, and so work
// while the server hangs.
//
// # One page fault
//
// The kernel sends READ; go-fuse calls raw.Read on one of its reader goroutines.
//
//  1. tree.node finds the node by its number, under a lock held for a map access.
//  2. readMemory notes that the pages are in flight, that a stall has begun, and which pages are
//     touched for the first time (epoch.read), and reads the page with Image.ReadPage into go-fuse's buffer;
//     a cold page with its cluster (see below).
//  3. The pages are resident, and no longer in flight. The reply goes out; reply.Done runs after that. The
//     stall is over, and what lies ahead of its reader, or beside the page in its locality
//     block, becomes a job for the pushers if there is room in their queue.
//
// This path allocates nothing, waits for no lock that is held over I/O or over a push (on a high-latency
// medium it may wait for another READ of the same block, see index), and cannot be interrupted: a signal
// to a vCPU must not become a SIGBUS. Errors are EIO, for exactly the pages
// that cannot be read; a READ of many pages of which one is bad is EIO, since a short answer would mean the
// end of the file. A READ that bypasses the page cache (O_DIRECT) locks no page and touches none.
//
// The mount negotiates a readahead of 4096 bytes. So a fault is one READ of 4 KiB whether or not
// the VMM gives MADV_RANDOM, which makes the record exact, while read(2) with a large buffer still
// gives READs of 128 KiB. A VMM that asks for huge pages (MADV_HUGEPAGE, as QEMU does) is the
// exception: Linux then reads 2 MiB and more around each fault; see Recorded reads.
//
// # Ahead of a reader
//
// A guest that goes through its memory in an order that the image has (by number, by the working set, by
// the layout, which is that of a trace or of the guest's page tables) is found within a few READs, and
// run ahead of: see streams. What is pushed grows with what the reader has come through, to 2 MiB, and
// never beyond two such rounds. Pushers take it part by part, from where the reader is then, and read each
// part at once. A READ of a page in a part that is on its way waits for the part (see coming, and why that
// is no deadlock): a reader faster than the pushes then makes one READ a part, not one a page.
//
// A READ that belongs to no such reader brings its locality block, as long as blocks are used soon: see
// neighbourhood. A guest that jumps costs the first two dozen blocks, and then none, also if it jumps in a
// set of which it uses each page in the end.
//
// # Cold pages
//
// A page that the store keeps in a cluster (see index) takes the decoding of 16 pages or more. The READ
// decodes the cluster once, into one of 32 buffers, copies its page, and is answered; then a pusher pushes
// the other pages that the image has in it from the same bytes, whatever the layout, and whether or not
// blocks pay: what was expensive has been done. They are pushed like all else, so none that is in flight,
// there already, or discarded, and nothing while reads are recorded or without pushes. READs of them that
// come before they are pushed, of another clone, or where nothing is pushed, find them in the buffer as
// long as no other cluster has taken it. So a cold page costs one decoding for all of its cluster. Nobody
// waits for a cluster that another READ is decoding: both decode it. A guest that touches one page in 64,
// at random, and never comes back costs about a quarter more of the server's CPU than without these pushes,
// and one that touches one in 16 nothing; its READs take as long (BenchmarkColdFault).
//
// The pages of a cluster are neighbours by content, and lie anywhere by number. So who runs ahead of a reader
// by number pushes whole clusters, too, and passes over pages that came with another one; and a reader whose
// pages came that way is taken for the same one when it asks for a page behind them. A part of the layout
// ends with a cluster, and so do pieces of feeds. So a reader of all of an image, a fill or an eager restore
// has each cluster decoded once, but for one of about eight by number: that of a round's marker is decoded
// once more when its READ comes. Each pusher has one cluster at a time, in one of the 32 buffers. They are
// pushed at once: kept back, to push neighbours together, they would come too late for a reader with read(2).
//
// # One restore
//
// OPEN of memory calls restore, which joins the flight that is under way or starts one: a goroutine
// of the server, on which any number of opens wait. A flight has goroutines fetch the pieces of the
// working set's feed in their order, one at a time or as many as the medium serves well; Options.Workers
// of them at a time, and one behind the landing as long as that is fast enough, decode, and push
// (NOTIFY_STORE) in one notification for each run of neighbouring pages, which they write to /dev/fuse
// themselves where mount(2) mounted it, and by go-fuse otherwise. When the flight lands, the opens return;
// what is left of it goes on as its tail and steps aside while READs are outstanding. When the last file
// is closed, the tail ends. All flights together have 64 pieces at a time at most, and decode and push as
// many at a time as there are CPUs: they take turns, piece by piece, so that of many restores each gets on,
// and READs find a CPU. Not more than 16 images are opened at a time; the other opens line up. Pushers have
// a queue for each file, and take turns as well (see jobs).
//
// When a flight lands, its playout decides (playout.go). The store knows when each piece of the feed is
// wanted (index.TimedFeed), because it was told when the set was attached. If it was not, as by older
// programs, the record of the working set says when each page was first touched: the text is read beside the
// first pieces, once for each opened image. After each piece that has come the flight asks: will all that are
// missing come before they are wanted, if the guest's first instruction is now? Piece j is expected after
//
//	pages missing up to j * (time of a page + 2 * its deviation / sqrt(pieces missing up to j)) * (1 + margin)
//
// where the time of a page is measured in this flight: the mean over all pieces, or over the newest eight
// if they came more slowly. The first pieces have also waited for the restore to get going, which does not
// come again: when so many others have come as are under way at once, they do not count any more. The mean
// of the server's last flights counts as one piece more. The flight lands at the first moment at which that
// is so for all pieces, or when all are there, or at a cap. Of a set of more than 1024 pieces neighbours are
// looked at together, so that the look stays short. What the VMM does between its open and the first
// instruction is left out, and to the good.
//
// Only a trace and the reads of a restore have times. A page of such a set that just the access bits name
// is wanted at the end of the recording. A set without times lies by recency and density: it lands with
// its front half, more if the margin has grown, and so with half of the wait at most. Half is what is used
// of pages with access bits. A record of a restore (Record) gives it times.
//
// The margin is learned for each image (Lesson): two restores in which pieces came after their time, or
// more than one page in 64 of the tail was asked for before it came, double it; two in a row that would
// have kept four times the margin take a quarter off. It is 0.25 in the beginning, 0.1 to 4. Options.Lessons
// keep it over restarts. Options.Asked keep which pages machines asked for, a few at a time, when the last of
// them has closed the image. Stats.Playout and the metrics show each plan and what became of it.
//
// PolicyWorkingSetFull lands when all is there. A session counts as restored when the tail has come to its
// end, never because of the landing.
//
// An open waits for a restore of its own working set and its own session, or for none: if a flight
// ends early (the image is made cold, all files are closed, there is a new working set), its opens begin
// another one. A flight that fails is counted, and what it could not bring is read on demand; damaged
// pages are left out, and the others are brought.
//
// An open that comes later asks the Prober how many pages are still in the page cache (cachestat,
// in another process, whose own open is answered at once). If none was lost, it returns; else, or
// if nobody can say, everything is pushed again, which over pages that are there costs a copy.
//
// # Learning
//
// With Options.Learned restores by working set teach which pages belong into it (watch.go, learning.go, and
// package wss/learn, which has the arithmetic). A restore is watched if its file is cold, at most eight at a
// time: the prober says, or the session is new. A machine that finds pages of another one does not ask for
// them, so of many machines on one memory file the first teaches, and of those on clones each. A study is
// prepared before the open takes any lock; the watch lasts from the landing until the machine has asked for
// nothing for 2 s (Options.LearnQuiet), 30 s at most. Meanwhile
//
//   - pages that the study holds out are wanted by no push (memoryFile.wants);
//   - nothing is pushed beside or ahead of READs, and nothing is filled: what is pushed is not seen used;
//   - a READ of a few pages is noted, with its time. Of one of 16 pages or more, as read(2) with a large
//     buffer makes them, or the readahead of huge pages, nobody knows which page was touched: it is counted.
//
// A restore teaches nothing, and the history says why, when its machine ended before, the mount ended, the
// image was made cold, the prefetch was capped, failed or was not there in 30 s,
// more than a quarter of the image was read or it was read with large buffers or in one sequence, or almost
// nothing was asked for and nothing of the sample (a program that looks at the file).
//
// A candidate is brought by the pieces of the image's own segment, without the pages that it leaves out, and
// the pages that it adds from their blocks (candidate.go), each in time for its first touch. It needs no
// place in the store until it has proved itself. Then Options.Proved tells the one who may write to the
// store; until the image has the new set restores bring it as a candidate. The record is saved (Learned)
// after each watched restore. If that fails, or the file is lost, the old set stays.
//
// # Fill
//
// With Options.Fill a fill follows the tail (fill.go), or the open where nothing is restored: it brings the
// rest of the image in the order of EagerFeed, then the zero pages, at that rate. It waits while a READ is
// outstanding anywhere, or came since it looked last (20 ms ago or less than a piece), while any flight goes
// on, and while reads are recorded. It looks before each read, before decoding, and every 32 pages; next to
// READs that never cease for 20 ms it takes a turn each second. It ends with the last close, a drop, and the
// next restore, which is followed by another. Files are filled as long as those being filled have half of
// the host's memory at most, or without that limit (Options.FillLarge).
//
// # Who may wait for whom
//
// A push of a page whose READ is in flight waits until that READ is answered, because the page is
// locked. These rules follow:
//
//   - READs never push. Only flights, fills and pushers do.
//   - A READ waits for a pusher only while that waits for no READ and for no gate, and at most
//     maxComing: see coming.
//   - Code that pushes holds no lock that a READ could take. memory.gate is held over pushes; drops
//     take its other side, READs do not take it.
//   - Decoding is not shared by locks: a page that a READ wants and a flight is decoding at the
//     same moment is decoded twice. What was decoded is shared: see Cold pages.
//   - Pushers skip pages in flight, because waiting for each of them makes a convoy: slow READs just
//     ahead of a push have made 4 s out of 30 ms. The small window between looking and pushing
//     costs at most that one READ's time.
//
// # Cold, recorded, counted
//
// An epoch is the life of an image from one cold page cache to the next: it begins with the mount,
// with Drop, and with StartRecord. It has the stalls and the trace of first touches, over the
// image's own file and all clones. A memory file has a session in each epoch, with its counters and
// its sets of pages. READs and pushers
// keep the session they began with, and a push into a session that is over is refused (errStale),
// so a drop only waits for pushes in progress.
//
// The trace is exact as long as every page that comes into the page cache is in it. So for an image
// without a working set nothing is pushed, from its first open on until Options.RecordWindow is
// over; the same after StartRecord, whatever the policy. The trace is spoiled by a push, by reads
// of a machine that was already running before that open, and by a file that could not be made cold;
// Record refuses a trace that is not exact (ErrNotCold).
//
// # Recorded reads
//
// READs of several pages are refused (EAGAIN) while nothing is pushed because reads are recorded. They are
// made by the kernel, ahead of and around what somebody needs, and it makes no error of a refusal: the pages
// stay in the page cache without content, and whoever needs one asks for it again, by a READ of 4 KiB. So
// the record of a machine with huge pages has the pages that it touched, and not the 2 MiB around each.
// Three kinds are answered: READs that bypass the page cache, which are somebody's own; a page that was
// refused before, so that a kernel with large folios, which must have several pages at once, gets them at
// its second try; and those of a process that has asked for three quarters of what was refused it, 64 pages
// at least: it reads all of the file.
//
// The kernel tells the thread of each READ, so the trace is kept for each process and each file
// (readproc.go). If processes have files of the mount mapped (/proc/PID/maps, looked at by Record), they are
// the machines, and all others copy; else a process copies that has read upwards in long stretches. What
// copies read is left out of a record; if one reads
// the same file as a machine, the machine finds pages that it did not ask for, and there is no record of
// it (RecordError). There is none either if nobody else reads, or for a file that was read for a moment.
//
// # Clones
//
// One shared mapping that is written to would change the image under every machine, as the page
// cache is one. So memory itself cannot be opened for writing. A clone can, for VMMs that insist;
// private mappings of it just work. A WRITE that reaches the server was made through a shared
// mapping or by write(2): it is refused, the clone is poisoned (EIO from then on), and its page
// cache dropped from another goroutine, since the WRITE has one of its pages locked.
//
// A clone belongs to the user who opens its memory first. Until then its mode is 0666, from then on
// 0600, and every OPEN by another user, root too, is EACCES. Where others are let in the kernel checks
// the modes (default_permissions), and the server checks again, because two users may open it first at
// the same time, and because modes do not stop root. So no user reads what another user writes or
// discards. Where nobody else is let in everything belongs to the mounting user, and the modes say so.
//
// Its owner can discard pages, as a balloon and the reporting of free pages do: FALLOCATE with
// PUNCH_HOLE and KEEP_SIZE, whole pages (EINVAL else). They read as zeros in that clone until
// it is closed; the kernel drops them from the page cache, and no push brings them back, since discards take
// the same side of memory.gate as drops. ZERO_RANGE and the like are EOPNOTSUPP. Allocating is EROFS,
// because there is no memory to allocate.
//
// The holes are those of one machine. They end with the last RELEASE, which comes when the last mapping is
// gone: the page cache of the clone is dropped, and the next OPEN, which waits for that, finds the image.
// Because the kernel sends RELEASE in the background, an OPEN of a clone that has holes and is open waits a
// moment (releaseTime) for it. Machines that have one clone open at the same time share its holes.
//
// The kernel forgets the inode of a closed clone when it likes, and then the clone is new again,
// without an owner. One that is poisoned stays so until the mount ends: use another ID.
//
// # Rights
//
// Without Rights the kernel lets in the user of the server alone. With them (allow_other) requests of all
// users come as far as their permissions, which the kernel checks (default_permissions), because the server
// sees with a request a user's number and first group, but not the other groups. Users and groups that are
// named are in access control lists (rights.go), which the kernel asks for by GETXATTR when it first needs
// that of an inode. The bits of the group are then the mask of the list: so Mount fails where the kernel
// takes no lists, and GETXATTR is never ENOSYS, after which the kernel would not ask again.
//
// # Panics
//
// A panic in a request becomes EIO for that request. A panic in a flight or a pusher ends it, with its
// book-keeping. Panics are logged with their stacks and counted (thaw_fs_panics_total). The server goes
// on serving pages.
//
// # The end of a mount
//
// Unmount never leaves a mount half removed. Bind mounts, overlays and other mount namespaces keep the
// file system alive although umount(2) has succeeded: then it is mounted again, by the same connection,
// and an InUseError names the users that /proc shows. Detach removes it from the tree anyway; the server
// then ends with the last user.
//
// # The end of the server process
//
// If nothing but the server has /dev/fuse open (it is close-on-exec, which go-fuse's own direct mount
// is not), a server that is killed ends the connection: waiting READs and every page not in the
// page cache are errors at once. Abort has the same effect if a server hangs. If somebody else has it open,
// too, all who need the server wait, and another server may go on. Whoever holds it must not do so for
// ever: it lets go after a bounded time without a server.
//
// # A takeover
//
// What another server needs it finds in three places. Node numbers are hashes of name and content, so it
// computes those of all checkpoints from the store. The ledger (ledger.go) has what was agreed at INIT, the
// clones that the kernel may know, with their owners and holes, and the files that are open; it is written
// before the kernel learns of a thing. And the requests that were read and not answered the kernel sends
// again (NOTIFY_RESEND, Linux 6.9), with a bit in their number. TakeOver does it in this order:
//
//  1. The ledger is read. If the kernel cannot send again, and the server before has not drained, it ends
//     here (ErrLost): somebody would wait for ever.
//  2. The store is listed, and the tree made, with everything in the ledger. Nodes that the kernel may know
//     are inherited: how often it knows them is not known, so only its taking back of more than was given by
//     this server is the end of one. A survey, some seconds later, asks for each whether it knows it at all.
//  3. go-fuse gets the INIT of the first server (greet.go), and must answer as that one did (AgreementError).
//  4. NOTIFY_RESEND, and only then the first read: no request is both read and sent again.
//  5. Requests are answered. Restores that were under way begin anew; they push over what is there.
//
// The database of the store is not opened for that; readers have none.
//
// Every operation may so be done twice. LOOKUP, GETATTR, READ, READDIR and FALLOCATE give the same the second
// time. The handle of an open file is the number of its OPEN, so one that is sent again is known and not
// counted twice, nor is its RELEASE; an OPEN that is sent again returns without waiting for its restore.
// FORGET is not sent again: what is lost of them the survey finds. A checkpoint that was renamed meanwhile is
// found by its content. One that was replaced is not: what machines have not touched of it is lost.
//
// Drain is the planned way, and needs no kernel that sends again. Notifications are refused, those under way
// end (gate); /dev/fuse becomes non-blocking, for all who have it, and threads that wait in a read(2) are
// interrupted. So each reader of go-fuse ends when there is no request left, after it has answered its last
// one. What comes after that waits in the kernel for the next server. The gate comes first, because a
// notification may wait for the answer to a READ, and then there is nobody to give it, and a thread that
// waits so keeps exec(2) from happening.
//
// Not taken over are counters, records and what was being learned, and the text of a stats.json that is open
// (ESTALE).
package fs
