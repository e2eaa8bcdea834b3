package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/fs"
)

const (
	// scriptsTimeout bounds all scripts together: with the race detector, on a busy host.
	scriptsTimeout = 15 * time.Minute
	// waitTimeout bounds whatever waits within a script.
	waitTimeout = time.Minute
)

// Scripts under testdata/script are command lines and their expected results, in the language of
// testscript (go doc github.com/rogpeppe/go-internal/testscript). "exec thaw" runs the code under
// test in a process of its own, as a user does. What is ours beside it:
//
//	fails NAME COMMAND ARGS  COMMAND ends with the status of that name in package exitcode
//	image FILE SIZE SEED     make a memory image, a third of it zero pages, sparse
//	flip PATTERN OFFSET      change a byte of the last file of a pattern; negative: from its end
//	guest STORE FILE RUNS    read pages of a memory file one by one, as a machine, and keep it open until
//	                         the server has learned from it; RUNS are FIRST+COUNT
//	await RE FILE            read a file again and again until it matches
//	fetch RE FILE            get the address that RE's parentheses find in FILE; its text is stdout
//	killserver [-TERM] MNT   end the server of a mount by SIGKILL and wait until it is gone; with
//	                         the name of another signal only send that
//	umount MNT               umount(8): take a mount away that nobody uses
//	servergone MNT           wait until the server that killserver sent a signal to has ended
//	documented FILE          what a server exposes, which FILE has, is what the help and the dashboard know
//	watched STORE COUNT      wait until it is known of so many restores what they have taught
//	[fuse], [kvm], [root]    conditions: what this host can do
//
// A script ends the mounts that it makes. What is left behind is taken down, and is an error where
// the script passed otherwise.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:       "testdata/script",
		Condition: scriptCondition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fails":      cmdFails,
			"image":      cmdImage,
			"changed":    cmdChanged,
			"vmstate":    cmdVMState,
			"records":    cmdRecords,
			"flip":       cmdFlip,
			"await":      cmdAwait,
			"guest":      cmdGuest,
			"watched":    cmdWatched,
			"fetch":      cmdFetch,
			"killserver": cmdKillServer,
			"servergone": cmdServerGone,
			"umount":     cmdUmount,
			"documented": cmdDocumented,
		},
		Setup:               setupScript,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(scriptsTimeout),
	})
}

// scriptCondition says what the host can do.
func scriptCondition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Geteuid() == 0, nil
	case "fuse":
		_, err := exec.LookPath("fusermount3")
		return usableHost() == nil && (os.Geteuid() == 0 || err == nil), nil
	case "kvm":
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		return err == nil, nil
	}
	return false, fmt.Errorf("no such condition: %s", name)
}

// setupScript arranges that nothing of a script outlives it: no mount and no process.
func setupScript(env *testscript.Env) error {
	t, ok := env.T().(testing.TB)
	if !ok {
		return fmt.Errorf("%T is no testing.TB", env.T())
	}
	// A process that waits for a server which hangs cannot be killed: cutting the connections frees
	// it. This comes after the deadline at which testscript kills what still runs.
	watchdog := time.AfterFunc(scriptsTimeout+10*time.Second, func() {
		for _, mnt := range mountsBelow(env.WorkDir) {
			fmt.Fprintf(os.Stderr, "%s hangs: %v\n", mnt, fs.Abort(mnt))
		}
	})
	env.Defer(func() {
		defer watchdog.Stop()
		if err := cleanUp(env.WorkDir); err != nil {
			if t.Failed() {
				t.Logf("left behind: %v", err)
			} else {
				t.Errorf("left behind: %v", err)
			}
		}
	})
	if env.Getenv("GORACE") == "" {
		env.Setenv("GORACE", "atexit_sleep_ms=10") // a process under the race detector ends late
	}
	env.Values[serversKey{}] = map[string]process.Watched{}
	return nil
}

// cleanUp ends the mounts below a directory, however they are, and the processes of the script
// that has it as its $WORK. It returns what it found.
func cleanUp(dir string) error {
	var errs []error
	for _, mnt := range mountsBelow(dir) {
		errs = append(errs, fmt.Errorf("mount %s", mnt), fs.Abort(mnt))
	}
	for _, pid := range processesOf(dir) {
		// Those that ended with their mount, or are just ending, are not left behind.
		p := process.Watch(pid)
		if !p.Wait(exitPatience) {
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			errs = append(errs, fmt.Errorf("process %d, %q", pid, name))
			if proc, err := os.FindProcess(pid); err == nil {
				errs = append(errs, proc.Kill())
			}
		}
		p.Close()
	}
	return errors.Join(errs...)
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// mountsBelow lists the mount points below a directory, the last one mounted first.
func mountsBelow(dir string) (found []string) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && below(f[4], dir) {
			found = append([]string{f[4]}, found...)
		}
	}
	return found
}

// processesOf lists the processes that have WORK=dir in their environment: all that a script starts
// inherit it.
func processesOf(dir string) (found []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || !strings.Contains("\x00"+string(text), "\x00WORK="+dir+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err == nil && pid != os.Getpid() {
			found = append(found, pid)
		}
	}
	return found
}
