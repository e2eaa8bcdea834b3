package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// asCommand in the environment makes the test binary behave as thaw: so the tests, and the servers,
// probers and machines that thaw starts by calling itself under whatever name, all run the code
// under test, each in a process of its own.
const asCommand = "THAW_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	command := func() {
		if err := os.Setenv(asCommand, "1"); err != nil {
			panic(err)
		}
		main()
	}
	testscript.Main(leakChecked{m}, map[string]func(){"thaw": command, mountHelper: command})
}

// leakChecked runs the tests, which fail too where goroutines are left when all have passed.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintf(os.Stderr, "goleak: %v\n", err)
		return 1
	}
	return 0
}
