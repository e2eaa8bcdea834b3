package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/keys"
	"github.com/thawfs/thaw/cmd/thaw/internal/logs"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
)

// app is what one run of the command shares: its streams, the global flags, the log.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	out            *output // stdout, once run has begun

	json, quiet, verbose bool
	logFormat            logs.Format
	keys                 keys.Source // of a sealed store

	request string // the ID of this run: servers log it with what this command asks them for
	log     *slog.Logger
	stores  access.Stores
	started bool // a verb was found and its arguments were right
	lasts   bool // this process is depended upon, as lasting says

	// silent is why the server of a mount did not answer, although the work on its store was done. The
	// command then ends with it.
	silent error

	patience atomic.Int64 // a time.Duration: how long the command may take to end after a signal
}

// setup runs after the flags are parsed, before the verb.
func (a *app) setup() {
	level := slog.LevelWarn
	switch {
	case a.verbose:
		level = slog.LevelDebug
	case a.quiet:
		level = slog.LevelError
	case a.logFormat != logs.Plain:
		level = slog.LevelInfo
	}
	h := logs.Handler(a.stderr, a.logFormat, level)
	if a.lasts {
		h = logs.Limit(h)
	}
	if a.log = slog.New(h); a.logFormat != logs.Plain && !a.lasts {
		a.log = a.log.With("request", a.request)
	}
	a.stores = access.Stores{Log: a.log, Note: a.note, Keys: a.keys.Get, MustSeal: a.keys.Given()}
}

// lasting prepares this process for being depended upon, as process.Lasting says. The returned
// function restores the log after everything that was logged has been written.
func (a *app) lasting() (end func()) {
	before, err := a.stderr, process.Lasting()
	w := process.NewPatientWriter(before)
	a.stderr, a.lasts = w, true
	a.setup()
	if err != nil {
		a.log.Debug("the OOM killer may choose this process", "why", err)
	}
	return func() {
		w.Close()
		a.stderr, a.lasts = before, false
		a.setup()
	}
}

// named says in an error what was being done; nil stays nil.
func named(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// note prints one line for the user on stderr, or into the log if that has a format; nothing with --quiet.
func (a *app) note(format string, args ...any) {
	switch text := fmt.Sprintf(format, args...); {
	case a.quiet:
	case a.logFormat != logs.Plain:
		a.log.Info(strings.TrimPrefix(text, "thaw: "))
	default:
		fmt.Fprintln(a.stderr, text)
	}
}

// warn is note for the warning of a package; "" is none.
func (a *app) warn(warning string) {
	switch {
	case warning == "" || a.quiet:
	case a.logFormat != logs.Plain:
		a.log.Warn(warning)
	default:
		a.note("warning: %s", warning)
	}
}

// printf prints data to stdout.
func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.stdout, format, args...) }

// printJSON prints one value, indented, to stdout.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table prints rows to stdout under a header, columns aligned. A header that begins with '>' is
// for a column of numbers, aligned to the right.
func (a *app) table(header []string, rows [][]string) {
	formats, width := make([]string, len(header)), make([]int, len(header))
	head := make([]string, len(header))
	for i, h := range header {
		formats[i] = "%-*s  "
		if head[i] = strings.TrimPrefix(h, ">"); head[i] != h {
			formats[i] = "%*s  "
		}
	}
	rows = append([][]string{head}, rows...)
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			fmt.Fprintf(&line, formats[i], width[i], c)
		}
		a.printf("%s\n", strings.TrimRight(line.String(), " "))
	}
}

// lines are names and what they stand for.
type lines [][2]string

func (l *lines) add(name, format string, args ...any) {
	*l = append(*l, [2]string{name, fmt.Sprintf(format, args...)})
}

// printLines prints the names in a column of that width.
func (a *app) printLines(width int, rows lines) {
	for _, r := range rows {
		a.printf("%s%s\n", pad(r[0], width), r[1])
	}
}

// stderrIsTerminal says whether stderr is a terminal.
func (a *app) stderrIsTerminal() bool {
	f, ok := a.stderr.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// exitError is how an error looks with --json: one line on stderr.
type exitError struct {
	MessageType string `json:"message_type"` // always "exit_error"
	Code        int    `json:"code"`
	Name        string `json:"name"`
	Message     string `json:"message"`
	Hint        string `json:"hint,omitempty"`
	Request     string `json:"request"` // the ID of this run of the command
}

// errInterrupted is what a user is told who has stopped a command: not which call of ours was cut short.
var errInterrupted = errors.New("interrupted")

// fail prints an error and returns the status to exit with.
func (a *app) fail(ctx context.Context, err error) exitcode.Code {
	if !a.started {
		a.setup() // by the flags that were understood
	}
	code, hint := classify(err)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		code, hint, err = exitcode.Interrupted, "", errInterrupted
	}
	switch {
	case a.json:
		line, _ := json.Marshal(exitError{"exit_error", int(code), code.Name(), err.Error(), hint, a.request})
		fmt.Fprintln(a.stderr, string(line))
		return code
	case a.logFormat != logs.Plain:
		a.log.Error(err.Error(), "code", int(code), "exit", code.Name(), "hint", hint)
		return code
	}
	fmt.Fprintln(a.stderr, "thaw: "+err.Error())
	if hint != "" {
		fmt.Fprintln(a.stderr, "      "+hint)
	}
	if refused, ok := errors.AsType[*control.RequestError](err); ok {
		fmt.Fprintf(a.stderr, "      the log of the server has this as request %s\n", refused.Request)
	}
	return code
}

func itoa(n int) string { return strconv.Itoa(n) }

// pad fills s up with blanks to a column of n, at least one.
func pad(s string, n int) string { return fmt.Sprintf("%-*s ", n-1, s) }
