// Package logs makes the logs of thaw: lines of text or of JSON, with times, and of a server at most some a
// second.
//
// A line has "time", "level", "msg" and, as the other fields, what it is about: "checkpoint", "clone", "err",
// "request" (the run of a command, see package control), "restore" (one restore, see package fs). Durations
// are seconds in JSON.
//
// What machines make a server do must not fill its disk. [Limit] bounds each message by itself, wherever in
// the program it is logged, and says how many of it were left out.
package logs
