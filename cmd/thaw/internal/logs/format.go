package logs

import (
	"fmt"
	"io"
	"log/slog"
)

// Format is how messages look. It is a flag of the command line.
type Format string

// The formats. Plain is for people who run a command: what it has to tell them is one line, without a time.
const (
	Plain Format = ""
	Text  Format = "text"
	JSON  Format = "json"
)

// Set implements pflag.Value, as the following methods do.
func (f *Format) Set(s string) error {
	if s != string(Text) && s != string(JSON) {
		return fmt.Errorf("want %s or %s", Text, JSON)
	}
	*f = Format(s)
	return nil
}

func (f *Format) String() string { return string(*f) }
func (f *Format) Type() string   { return "format" }

// Handler writes what is at least at a level.
func Handler(w io.Writer, f Format, level slog.Level) slog.Handler {
	if f == JSON {
		return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: inSeconds})
	}
	return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
}

// inSeconds makes numbers of durations that other programs understand.
func inSeconds(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.Float64Value(a.Value.Duration().Seconds())
	}
	return a
}
