package firecracker

// Request is one thing that the process is to do.
//
//	hand     make memory like the file Source, and hand it over at Socket
//	send     connect to Socket, and send Text and Descriptors
//	live     live at random in Threads threads for Steps each
//	touch    read the pages GFNs in this order, one after another; with Times each is timed
//	check    read all of memory and compare it
//	unmap    unmap the last region
//	pin      stay on processor CPU, but for the threads of "live"
//	resident count the pages that are there
//	remove   give back Count pages from First on
type Request struct {
	Op     string
	Socket string
	Source string
	// Splits are sizes of the first regions, in bytes; the last region has the rest.
	Splits   []uint64
	PageSize uint64 // 4096 or 2 MiB; 0: 4096
	Features uint64 // of the userfaultfd; 0: that memory is removed
	// Old sends no page_size but page_size_kib, as old versions did.
	Old bool
	// Parts sends the message in so many parts.
	Parts int
	// Lies are put into the message in place of what is true, by region and field.
	Lies []Lie
	// Text is sent in place of the message, if there is one; with it the userfaultfd, Descriptors times. Close
	// then ends the connection.
	Text        string
	Descriptors int
	Close       bool

	Threads, Steps int
	Seed           uint64
	GFNs           []uint64
	First, Count   uint64
	Times          bool
	CPU            int
}

// Lie is a field of the message of a region, and what it says.
type Lie struct {
	Region int
	Field  string
	Value  int64
}

// Response is what came of it.
type Response struct {
	Error   string
	Pages   uint64   // that were read, or are there
	Wrong   []uint64 // pages that were not what they must be
	NS      []int64
	Removed uint64 // times that memory was given back
}
