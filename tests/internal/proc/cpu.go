package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// CPU is the time that all threads of a process which are there have run, user and system.
func CPU(pid int) (sum time.Duration, err error) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, t := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("%s/%s/schedstat", dir, t.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended
		}
		var ran int64
		if err == nil {
			_, err = fmt.Sscan(string(text), &ran)
		}
		if err != nil {
			return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
		}
		sum += time.Duration(ran)
	}
	return sum, nil
}
