// Package tests has the tests of several parts of thaw together. The parts import nothing of it.
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
// The server is a process of its own; so is every client that maps or reads through the mount:
// the test process itself never does, because a Go program that faults on a mount whose server
// has died cannot be stopped any more. Everything has a time limit, and what a test has started or
// mounted is gone when it ends, also when it fails: processes by pid, mounts by umount, and where
// a client hangs in the kernel, by aborting the FUSE connection of that very mount.
//
// A test skips only if the host lacks something, and says what.
package tests
