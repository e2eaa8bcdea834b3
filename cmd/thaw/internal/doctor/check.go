package doctor

import (
	"context"
	"fmt"
)

// Status is the outcome of a check.
type Status string

// The outcomes.
const (
	OK      Status = "ok"
	Limited Status = "limited" // a part of it is missing
	Missing Status = "missing"
	Unknown Status = "unknown" // could not be found out
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Needed: no store can be mounted without it.
	Needed bool `json:"needed"`
	// Found says what was found, or why it is missing.
	Found string `json:"found"`
	// Without says what thaw does without, where Status is not OK.
	Without string `json:"without,omitempty"`
	// Facts are the findings one by one, for programs.
	Facts map[string]any `json:"facts,omitempty"`
}

// Report is the result of all checks.
type Report struct {
	// Usable: everything that is needed is there.
	Usable bool    `json:"usable"`
	Checks []Check `json:"checks"`
}

// Run makes all checks, in the order in which they are to be read.
func Run(ctx context.Context) Report {
	report := Report{Usable: true}
	for _, check := range []func(context.Context) Check{
		checkKernel, checkRights,
		checkFuseDevice, checkFusermount, checkMount, checkFuseProtocol, checkFuseControl,
		checkCachestat, checkKVM, checkUserfaultfd, checkTracepoint,
	} {
		if ctx.Err() != nil {
			break
		}
		c := check(ctx)
		if c.Status == OK {
			c.Without = ""
		}
		if c.Needed && c.Status == Missing {
			report.Usable = false
		}
		report.Checks = append(report.Checks, c)
	}
	return report
}

// is makes the result of a check.
func (c Check) is(status Status, format string, args ...any) Check {
	c.Status, c.Found = status, fmt.Sprintf(format, args...)
	return c
}
