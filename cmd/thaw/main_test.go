package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// asCommand in the environment makes the test binary behave as thaw: so the tests, and the servers,
// probers and machines that thaw starts by calling itself, all run the code under test, each in a
// process of its own.
const asCommand = "THAW_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}
