package readbench

import (
	"errors"
	"fmt"
	"time"
)

// Patterns, the values of Config.RW.
const (
	Read     = "read"
	RandRead = "randread"
	Zipf     = "zipf"
)

// Engines, the values of Config.Engine.
const (
	Mmap  = "mmap"
	Psync = "psync"
)

// Advice for the mapping, the values of Config.Advice.
const (
	AdviceNormal     = "normal"
	AdviceRandom     = "random"
	AdviceSequential = "sequential"
)

// Config says what to read and how; the words are fio's.
type Config struct {
	File       string
	RW         string        // Read, RandRead or Zipf
	BS         int           // block size in bytes; a multiple of the page size for Mmap
	Engine     string        // Mmap or Psync
	Advice     string        // madvise of the mapping; "": random but for RW Read
	NumJobs    int           // independent readers
	IODepth    int           // requests that each has outstanding
	Offset     int64         // begin of the part that is read
	Size       int64         // length of the part that is read; 0: to the end of the file
	IOSize     int64         // bytes that each job reads; 0: as many as the part has
	Runtime    time.Duration // end after this time; 0: when all is read
	TimeBased  bool          // begin anew when all is read, until Runtime is over
	ZipfTheta  float64       // above 1; the greater, the more uneven
	Seed       uint64        // of the random patterns
	VerifyFile string        // what every block is compared with; "": nothing

	ContinueOnError bool // count failed reads and go on

	// Progress, if not nil, is called now and then with the bytes read so far and those to read (0:
	// not known); quiet is how long no read has come to an end.
	Progress func(done, total int64, quiet time.Duration)
}

// maxBlock bounds the memory of a run.
const maxBlock = 64 << 20

// ConfigError says what is wrong with a Config.
type ConfigError struct{ What string }

func (e *ConfigError) Error() string { return e.What }

// check finds what cannot be run, before any file is opened.
func (c *Config) check() error {
	bad := func(format string, args ...any) error {
		return &ConfigError{fmt.Sprintf(format, args...)}
	}
	switch {
	case c.RW != Read && c.RW != RandRead && c.RW != Zipf:
		return bad("rw=%s: read, randread and zipf can be", c.RW)
	case c.Engine != Mmap && c.Engine != Psync:
		return bad("ioengine=%s: mmap and psync can be", c.Engine)
	case c.BS <= 0 || c.BS > maxBlock:
		return bad("bs=%d: 1 byte to 64 MiB can be", c.BS)
	case c.Engine == Mmap && (c.BS%pageSize() != 0 || c.Offset%int64(pageSize()) != 0):
		return bad("bs=%d offset=%d: with ioengine=mmap both are multiples of %d",
			c.BS, c.Offset, pageSize())
	case c.NumJobs < 1 || c.NumJobs > 1024 || c.IODepth < 1 || c.IODepth > 1024:
		return bad("numjobs=%d iodepth=%d: 1 to 1024 can be", c.NumJobs, c.IODepth)
	case c.Offset < 0 || c.Size < 0 || c.IOSize < 0 || c.Runtime < 0:
		return bad("offset, size, io-size and runtime cannot be negative")
	case c.TimeBased && c.Runtime == 0:
		return bad("time-based needs a runtime")
	case c.RW == Zipf && !(c.ZipfTheta > 1 && c.ZipfTheta < 100):
		return bad("zipf-theta=%v: more than 1, less than 100 can be", c.ZipfTheta)
	}
	switch c.Advice {
	case "", AdviceNormal, AdviceRandom, AdviceSequential:
		return nil
	}
	return bad("madvise=%s: normal, random and sequential can be", c.Advice)
}

// advice is what the mapping is advised of: what fio's mmap engine does, if nothing else is said.
func (c *Config) advice() string {
	switch {
	case c.Advice != "":
		return c.Advice
	case c.RW == Read:
		return AdviceSequential
	default:
		return AdviceRandom
	}
}

// part works out the part of a file of that size that is read.
func (c *Config) part(fileSize int64) (offset, size int64, err error) {
	if fileSize == 0 {
		return 0, 0, errors.New("the file is empty")
	}
	if c.Offset >= fileSize {
		return 0, 0, &ConfigError{fmt.Sprintf("offset=%d: the file has %d bytes", c.Offset, fileSize)}
	}
	size = fileSize - c.Offset
	if c.Size > 0 {
		size = min(size, c.Size)
	}
	return c.Offset, size, nil
}
