package torture

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
)

var (
	lifeFlag = flag.Duration("life", time.Minute, "how long the random lives last, all together")
	dayFlag  = flag.Float64("day", 0.4, "share of -life that the day lasts")
	seedFlag = flag.Uint64("seed", 0, "seed of the random choices; 0: a new one")
)

func TestMain(m *testing.M) {
	keeperMainIfChild() // first: it inherits what makes its parent a worker
	workerMainIfChild()
	readerMainIfChild()
	os.Exit(cli.Main(m))
}
