package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// leastScore makes the OOM killer choose this process first.
const leastScore = 1000

// The class of ioprio_set(2) for processes that get the disk when nobody else wants it.
const (
	ioprioProcess = 1
	ioprioIdle    = 3 << 13
)

// Background makes all of this process one that gets the processor and the disk when nobody else wants
// them, and that the kernel ends first when memory runs out. An error says what is not so.
func Background() error {
	var errs []error
	// A thread that is being started has what the one that starts it has.
	for range 2 {
		errs = errs[:0]
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			errs = append(errs, yieldThread(tid))
		}
	}
	err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(leastScore)), 0)
	return errors.Join(append(errs, err)...)
}

func yieldThread(tid int) error {
	err := unix.SchedSetAttr(tid, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE, Nice: 19,
	}, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil // it has ended
	}
	if err != nil {
		err = fmt.Errorf("sched_setattr: %w", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioProcess, uintptr(tid), ioprioIdle); errno != 0 &&
		errno != unix.ESRCH {
		err = errors.Join(err, fmt.Errorf("ioprio_set: %w", errno))
	}
	return err
}

// Hurry makes a process that is in the background one like others, because somebody waits for it: on a busy
// host it may get no time at all. Only a privileged process can do that; an error says that it is not done.
func Hurry(pid int) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		err = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr}, 0)
		if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioProcess, uintptr(tid), 0); errno != 0 {
			err = errors.Join(err, errno)
		}
		if !errors.Is(err, unix.ESRCH) { // it has ended
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
