package qemu

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/thawfs/thaw/wss/scan"
)

var (
	cpuLine  = regexp.MustCompile(`(?m)^CPU#\d+`)
	register = regexp.MustCompile(`\b(CR0|CR3|CR4|EFER|RIP|EIP|HLT)=([0-9a-f]+)`)
)

// parseRegisters parses `info registers -a`: one paragraph for each vCPU, which begins with its number.
func parseRegisters(text string) ([]scan.CPU, error) {
	starts := cpuLine.FindAllStringIndex(text, -1)
	if len(starts) == 0 {
		return nil, errors.New("QEMU's answer lists no vCPU")
	}
	var cpus []scan.CPU
	for i, s := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		cpu, err := parseCPU(text[s[0]:end])
		if err != nil {
			return nil, fmt.Errorf("vCPU %d: %w", i, err)
		}
		cpus = append(cpus, cpu)
	}
	return cpus, nil
}

func parseCPU(text string) (scan.CPU, error) {
	values := make(map[string]uint64)
	for _, m := range register.FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseUint(m[2], 16, 64)
		if err != nil {
			return scan.CPU{}, fmt.Errorf("%s: %w", m[1], err)
		}
		values[m[1]] = v
	}
	for _, name := range []string{"CR0", "CR3", "CR4", "EFER"} {
		if _, ok := values[name]; !ok {
			return scan.CPU{}, fmt.Errorf("no %s; only x86 machines can be scanned", name)
		}
	}
	return scan.CPU{CR0: values["CR0"], CR3: values["CR3"], CR4: values["CR4"],
		EFER: values["EFER"], RIP: values["RIP"] + values["EIP"], Halted: values["HLT"] != 0}, nil
}
