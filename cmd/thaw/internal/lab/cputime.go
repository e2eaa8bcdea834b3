package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// userHZ is the unit of times in /proc/PID/stat.
const userHZ = 10 * time.Millisecond

// vcpuKernelTime is how long the vCPUs of a process have been in the kernel: its threads that have
// run a guest.
func vcpuKernelTime(pid int) (sum time.Duration, err error) {
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return 0, err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has just ended
		}
		kernel, guest, err := threadTimes(string(text))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		if guest > 0 {
			sum += kernel
		}
	}
	return sum, nil
}

// threadTimes reads fields 15 and 43 of a stat file, stime and guest_time. The second field is a
// name in parentheses that may hold anything.
func threadTimes(stat string) (kernel, guest time.Duration, err error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const stime, guestTime = 15 - 3, 43 - 3
	if len(fields) <= guestTime {
		return 0, 0, fmt.Errorf("%d fields behind the name", len(fields))
	}
	var ticks [2]int64
	for i, field := range [2]int{stime, guestTime} {
		if ticks[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return 0, 0, err
		}
	}
	return time.Duration(ticks[0]) * userHZ, time.Duration(ticks[1]) * userHZ, nil
}
