package fs

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/thawfs/thaw/index"
)

// PageSize is the unit of everything: guest frames, faults, page maps.
const PageSize = index.PageSize

// A Store holds the checkpoints that the tree shows, by name. NewStore makes one of an index.Store.
//
// Its methods are called from many goroutines at once.
type Store interface {
	// List returns every checkpoint there is.
	List(ctx context.Context) ([]Checkpoint, error)
	// OpenImage opens the memory of a checkpoint as List showed it. It is an error, not other
	// content, when the name has a new checkpoint by now; ErrNotFound when the checkpoint is gone.
	OpenImage(ctx context.Context, c Checkpoint) (Image, error)
	// OpenFile opens one of c.Files as List showed it: like OpenImage an error, not other bytes,
	// when the name has a new checkpoint by now, or the working set was replaced.
	OpenFile(ctx context.Context, c Checkpoint, file string) (File, error)
}

// A Checkpoint is one directory of the mount.
type Checkpoint struct {
	// Name is the directory's name.
	Name string
	// ID stands for memory content: equal IDs have equal bytes in memory. Node numbers, and so the kernel's
	// page cache, depend on it, and on the name, which may change.
	ID string
	// MemoryBytes is the size of memory, a multiple of PageSize.
	MemoryBytes int64
	// DataPages are the pages of it that are not zero.
	DataPages uint64
	// Created is shown as the time of the files.
	Created time.Time
	// Revision distinguishes two sets of Files, Info and WorkingSet of one ID: a new working set was
	// set, and memory is the same.
	Revision uint32
	// Files are the sizes in bytes of the files stored beside memory: state, working-set.
	Files map[string]int64
	// WorkingSet says that a restore by working set is possible.
	WorkingSet bool
	// Info is the text of info.json.
	Info []byte
	// Names are what the program that saved it calls its files. They depend on nothing but ID and Files.
	Names Names
}

// A File is stored bytes; ReadAt returns io.EOF at the end.
type File interface {
	io.ReaderAt
	io.Closer
}

// An Image is the opened image of a checkpoint: its page map is in RAM. It is an *index.Image with
// an adapter for the locality blocks.
//
// Methods are called from many goroutines at once, ReadPage once a fault. An error means that the
// bytes cannot be read: it becomes EIO, and dst is ignored. Where many pages are read at once to be
// pushed, a PagesError says which of them are missing; the others are used.
type Image interface {
	// Size is the image's size in bytes.
	Size() int64
	// Zero says whether a page is known to hold only zeros.
	Zero(gfn uint64) bool
	// NextData and NextZero are the first page from gfn on that is not zero, and that is; Size/4096 if there is
	// none. DataBefore counts the pages before gfn that are not zero. All take the same time however many
	// pages are alike.
	NextData(gfn uint64) uint64
	NextZero(gfn uint64) uint64
	DataBefore(gfn uint64) uint64
	// ReadPage puts one page into dst, which is 4096 bytes, without allocating.
	ReadPage(gfn uint64, dst []byte) error
	// Cluster returns the cluster of cold pages that a page lies in, and which page of it that is; false
	// for one that lies in none. It takes no lock and allocates nothing.
	Cluster(gfn uint64) (id ClusterID, at int, ok bool)
	// ReadCluster reads and decodes the cluster that a page lies in, as ReadPage does, but keeps it whole.
	ReadCluster(gfn uint64, c *Cluster) error
	// ClusterPages puts the pages that Neighbours names into p, out of their cluster, without I/O.
	ClusterPages(c *Cluster, p *Piece)
	// ReadRange puts len(dst)/4096 pages from first on into dst.
	ReadRange(first uint64, dst []byte) error
	// Neighbours appends to dst the pages stored in one locality block or cluster with gfn, gfn among them,
	// in layout order, without I/O. Nothing for a zero page.
	Neighbours(gfn uint64, dst []uint64) []uint64
	// ReadNeighbours reads and decodes that block, in one read.
	ReadNeighbours(gfn uint64, p *Piece) error
	// Local says whether the pages of a block are likely to be used together. Only then is it
	// worth pushing the rest of the block when one of its pages is demanded.
	Local() bool
	// WorkingSetFeed is the working set, zero pages of it included, in first-touch order.
	WorkingSetFeed() Feed
	// PagesFeed is some pages of the image in about that order, zero pages too, in pieces of 256 at most.
	// A piece of it that was fetched is decoded by the WorkingSetFeed, too.
	PagesFeed(runs []Run) Feed
	// Orders are the sequences in which a guest is likely to touch pages, two at most: the working
	// set's, and, if Local, the one of the layout, last. They are made anew by each call.
	Orders() []Order
	// EagerFeed is every page that is not zero, in the order they lie on disk.
	EagerFeed() Feed
	// ZeroRuns calls fn for each run of zero pages until fn returns false.
	ZeroRuns(fn func(first, count uint64) bool)
	// Close releases the image. No method is called after it.
	Close() error
}

// Buffers of pages on their way into a page cache, and the sequences they come in, are index's own:
// Piece.Pages[i*4096:] belongs to Piece.GFNs[i]; the pieces of a Feed can be read in any order and
// by many goroutines at once, each with a Piece of its own.
// A PagesError names pages that could not be read; a Piece is without them. An Order is a sequence of
// pages in which a guest may touch them. A Cluster is cold pages that can only be decoded together.
type (
	Piece      = index.Piece
	Cluster    = index.Cluster
	ClusterID  = index.ClusterID
	Feed       = index.Feed
	Order      = index.Order
	PagesError = index.PagesError
	Run        = index.Run
)

// Errors that callers tell apart.
var (
	// ErrReplaced: the name has another checkpoint by now, which the tree does not know yet.
	ErrReplaced = errors.New("another checkpoint has the name now")
	// ErrNotFound: the mount has no checkpoint or clone of that name.
	ErrNotFound = errors.New("no such checkpoint on the mount")
	// ErrNotCold: a record was asked of an image into which pages were pushed, or which a machine that
	// was already running read before the first open. So the reads are not all first touches.
	// StartRecord makes it cold and begins again.
	ErrNotCold = errors.New("the image was not cold when it was opened")
	// ErrNothing: a record was asked of an image of which nothing was read.
	ErrNothing = errors.New("nothing was read of the image since it was cold")
	// ErrNotMachine: what was read cannot be the working set of a machine, see RecordError.
	ErrNotMachine = errors.New("it was not read by a machine")
	// ErrInUse: the checkpoint's memory is open on the mount.
	ErrInUse = errors.New("its memory is open on the mount")
	// ErrBusy: the mount is in use.
	ErrBusy = errors.New("the mount is in use")
)
