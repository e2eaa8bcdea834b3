package client

// Request is one thing to do. Op says what; the other fields are its arguments.
type Request struct {
	Op   string
	Path string
	Map  Map

	// Pages: GFNs, or else Count pages from First on, in the order of Order.
	GFNs         []uint64
	First, Count uint64
	Order        string // "" ascending, "random" shuffled by Seed
	Seed         uint64
	Source       string // compare with this file's bytes
	Times        bool   // report how long each page took

	Offset int64
	Length int
	Byte   byte
	CPU    int
}

// Map says how Open opens and maps a file.
type Map struct {
	ReadWrite bool // O_RDWR; else O_RDONLY
	Private   bool // MAP_PRIVATE; else MAP_SHARED
	Writable  bool // PROT_WRITE as well
	Random    bool // MADV_RANDOM
	NoMap     bool // open only
	Direct    bool // O_DIRECT, for raw reads
}

// Response answers a request.
type Response struct {
	Error string // what failed, with the errno's name in Errno
	Errno string // "EROFS", ...; "" where all went well

	Size   int64    // Open: the file's size
	Pages  uint64   // pages looked at
	Wrong  []uint64 // pages whose bytes are not those of Source
	Lost   []uint64 // pages that gave SIGBUS
	NS     []int64  // Times: nanoseconds of each page, in the order of the touches
	Nanos  int64    // how long all of it took
	Data   []byte   // Read
	Cached uint64   // Cached: pages in the page cache
	Minor  int64    // minor faults of the process during the operation
	Major  int64    // major faults
}
