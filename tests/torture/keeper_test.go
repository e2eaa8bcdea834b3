package torture

import (
	"os"
	"os/exec"

	"github.com/thawfs/thaw/index"
)

const keeperEnv = "THAW_TEST_TORTURE_KEEPER"

// keeper returns the process that keeps the index of a store: the test binary once more.
func keeper() *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), keeperEnv+"=1")
	return cmd
}

// keeperMainIfChild must be called first by TestMain: in a keeper it does not return.
func keeperMainIfChild() {
	if os.Getenv(keeperEnv) != "" {
		os.Exit(index.KeeperMain())
	}
}
