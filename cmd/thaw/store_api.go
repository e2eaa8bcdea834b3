package main

import (
	"context"
	"encoding/json"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/index"
)

// storeAPI is what the commands do to a store. There are two of it: localStore has the store open
// itself, remoteStore asks the server that does. openStore finds out which one it takes; a verb
// does not see the difference.
type storeAPI interface {
	Import(ctx context.Context, r importRequest, progress progressFunc) (importReply, error)
	Export(ctx context.Context, r exportRequest, progress progressFunc) error
	List(ctx context.Context) ([]index.Checkpoint, error)
	Inspect(ctx context.Context, name string) (index.Details, error)
	Remove(ctx context.Context, name string) error
	Check(ctx context.Context, r checkRequest, progress progressFunc) (index.CheckReport, error)
	GC(ctx context.Context, r gcRequest, progress progressFunc) (index.GCReport, error)
	// SetWorkingSet makes text (the format of package wss) the working set of a checkpoint.
	SetWorkingSet(ctx context.Context, name string, text []byte) (index.Checkpoint, error)
	// ReadFile returns a small file of a checkpoint, such as its working-set.
	ReadFile(ctx context.Context, name, file string) ([]byte, error)
	Close() error
}

// progressFunc hears how far work is. It may be called from several goroutines.
type progressFunc = func(control.Progress)

// importRequest says what to import. Path is absolute: the server has another working directory.
type importRequest struct {
	Path             string
	Name             string
	Profile          string  // "" takes the store's
	IgnoreWorkingSet bool    // import the memory, leave a working-set file aside
	Layout           string  // of what no working set names; "" takes layoutVirtual
	MaxShare         float64 // of a wss.Policy for what is brought before the machine runs
}

type importReply struct {
	Checkpoint index.Checkpoint  `json:"checkpoint"`
	Stats      index.ImportStats `json:"stats"`
	Layout     layoutStats       `json:"layout"`
	Warning    string            `json:"warning,omitempty"` // of a working set that is too large
}

// exportRequest says what to export; Dir is absolute.
type exportRequest struct{ Name, Dir string }

type checkRequest struct{ ReadData, Rebuild bool }

type gcRequest struct{ DryRun bool }

// nameRequest names a checkpoint, and a file of it where one is meant.
type nameRequest struct{ Name, File string }

type setRequest struct {
	Name string
	Text []byte
}

// serverStatus is what a server says of itself.
type serverStatus struct {
	PID     int             `json:"pid"`
	Version string          `json:"version"`
	Store   string          `json:"store"`
	Mount   string          `json:"mount"`
	Policy  string          `json:"policy"`
	Disk    *diskStatus     `json:"disk,omitempty"` // the modelled one; nil: none
	Extra   json.RawMessage `json:"extra,omitempty"`
}
