package index

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if how := os.Getenv(liarEnv); how != "" {
		os.Exit(liarMain(how))
	}
	if os.Getenv(keeperEnv) != "" {
		os.Exit(KeeperMain())
	}
	if dir := os.Getenv(crashDirEnv); dir != "" {
		os.Exit(crashMain(dir))
	}
	goleak.VerifyTestMain(m,
		// Badger's dependency starts it with the first cache and never ends it.
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
	)
}
