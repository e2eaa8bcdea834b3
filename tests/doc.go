// Package tests has the tests that use several parts of thaw together. The parts do not import it.
//
//	tests/run           every check and every test, with fewer rounds of what is random (go test
//	                    -short); --long has all of them, and .ci/run calls that
//	tests               the architecture test: which package may import which, where
//	                    unsafe is, which files exist
//	tests/qemu          a real Linux under QEMU that checks its own data: boot, save, restore
//	tests/boot          Linux started by what vmm/linux and vmm/acpi write, on QEMU's software CPU
//	tests/e2e           end to end with the built `thaw`: QEMU and KVM guests restored from mounts,
//	                    failing closed, hostile input, read patterns with fio, many opens at once
//	tests/torture       random lives of a store against a model; damage, kills, many processes at once
//	tests/perf          measurements against peers, side by side in one run, with its own commands
//	tests/paper         the evaluation of VEE 2011 run again, beside the published figures; a command
//	tests/internal      helpers: processes that cannot outlive a test, a client process that maps
//	                    files of a mount, the built binary, the summary of a run
//
// # Rules of every test that mounts
//
// The server runs in its own process, and so does every client that maps or reads through the mount.
// The test process itself never does that, because a Go program that faults on a mount whose server has
// died cannot be stopped. Everything has a time limit. Whatever a test has started or mounted is gone
// when it ends, even if it fails: processes are killed by pid, mounts are unmounted, and if a client
// hangs in the kernel, the FUSE connection of that mount is aborted.
//
// A test is skipped only if the host lacks something, which the message names.
package tests
