package control

import (
	"context"

	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/blob/disk"
)

// Mount is what the server of a mount can do, which nobody else can. [Verbs] makes it callable over
// the socket, where a [Client] has the same methods.
type Mount interface {
	Status(ctx context.Context) (Status, error)
	Refresh(ctx context.Context) error              // the tree follows the store
	Release(ctx context.Context, name string) error // let go of a checkpoint; refused while it is used
	CloseIdle(ctx context.Context) error            // let go of what nobody uses
	Drop(ctx context.Context, r DropRequest) error  // make an image cold
	Record(ctx context.Context, r RecordRequest) (Recorded, error)
	Goroutines(ctx context.Context) (string, error) // what its process does, for a report of a fault
	Unmount(ctx context.Context, detach bool) error // with detach although it is in use
	// Upgrade begins to put a program in the place of the server, which goes on with the mount. It is
	// refused if that could not, or if its options would not be those of the mount.
	Upgrade(ctx context.Context, program string) error
}

// Status is what a server says of itself.
type Status struct {
	PID     int    `json:"pid"`
	Version string `json:"version"`
	Store   string `json:"store"`
	Mount   string `json:"mount"`
	Policy  string `json:"policy"`
	// Detached: it is out of the tree, and served to the processes that still use it.
	Detached bool        `json:"detached,omitempty"`
	Users    []fs.User   `json:"users,omitempty"` // of a detached one
	Disk     *DiskStatus `json:"disk,omitempty"`  // the simulated one; nil: none
	// Takeovers is how often another server has gone on with the mount, and Survives says whether one will
	// if this one dies; if not, WhyNot says why.
	Takeovers int    `json:"takeovers"`
	Survives  bool   `json:"survives"`
	WhyNot    string `json:"survives_not_because,omitempty"`
}

// DiskStatus is what a server says of a simulated disk.
type DiskStatus struct {
	disk.Spec
	disk.Stats
}

// DropRequest makes an image cold.
type DropRequest struct {
	Name   string
	Packs  bool // its packs leave the host's page cache too, for measurements
	Record bool // what is read from the next open on is recorded, whatever the policy
}

// RecordRequest asks for what was read of a checkpoint.
type RecordRequest struct {
	Name  string
	Force bool // also what no machine reads
}

// Recorded is a working set as text, and of which checkpoint it is.
type Recorded struct {
	Store   string
	Version index.Version
	Text    []byte
}

// The verbs, and the requests of those that have no type of their own.
const (
	verbStatus    = "status"
	verbRefresh   = "refresh"
	verbRelease   = "release"
	verbCloseIdle = "close-idle"
	verbDrop      = "drop"
	verbRecord    = "record"
	verbRoutines  = "goroutines"
	verbUnmount   = "unmount"
	verbUpgrade   = "upgrade"
)

type (
	none           struct{}
	releaseRequest struct{ Name string }
	unmountRequest struct{ Detach bool }
	upgradeRequest struct{ Program string }
)

// Verbs makes the handlers of a mount.
func Verbs(m Mount) map[string]Handler {
	return map[string]Handler{
		verbStatus: Handle(func(ctx context.Context, _ none) (any, error) { return m.Status(ctx) }),
		// Also where the command went away: what it changed stands.
		verbRefresh: Handle(func(ctx context.Context, _ none) (any, error) {
			return nil, m.Refresh(context.WithoutCancel(ctx))
		}),
		verbRelease: Handle(func(ctx context.Context, r releaseRequest) (any, error) {
			return nil, m.Release(ctx, r.Name)
		}),
		verbCloseIdle: Handle(func(ctx context.Context, _ none) (any, error) {
			return nil, m.CloseIdle(ctx)
		}),
		verbDrop: Handle(func(ctx context.Context, r DropRequest) (any, error) {
			return nil, m.Drop(ctx, r)
		}),
		verbRecord: Handle(func(ctx context.Context, r RecordRequest) (any, error) {
			return m.Record(ctx, r)
		}),
		verbRoutines: Handle(func(ctx context.Context, _ none) (any, error) {
			return m.Goroutines(ctx)
		}),
		// The end of the mount ends ctx, and is what is asked for.
		verbUnmount: Handle(func(ctx context.Context, r unmountRequest) (any, error) {
			return nil, m.Unmount(context.WithoutCancel(ctx), r.Detach)
		}),
		verbUpgrade: Handle(func(ctx context.Context, r upgradeRequest) (any, error) {
			return nil, m.Upgrade(ctx, r.Program)
		}),
	}
}

var _ Mount = (*Client)(nil)

// Status implements Mount, as the following methods do.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.Call(ctx, verbStatus, none{}, &s)
	return s, err
}

func (c *Client) Refresh(ctx context.Context) error { return c.Call(ctx, verbRefresh, none{}, nil) }

func (c *Client) Release(ctx context.Context, name string) error {
	return c.Call(ctx, verbRelease, releaseRequest{name}, nil)
}

func (c *Client) CloseIdle(ctx context.Context) error {
	return c.Call(ctx, verbCloseIdle, none{}, nil)
}

func (c *Client) Drop(ctx context.Context, r DropRequest) error {
	return c.Call(ctx, verbDrop, r, nil)
}

func (c *Client) Record(ctx context.Context, r RecordRequest) (s Recorded, err error) {
	err = c.Call(ctx, verbRecord, r, &s)
	return s, err
}

func (c *Client) Goroutines(ctx context.Context) (text string, err error) {
	err = c.Call(ctx, verbRoutines, none{}, &text)
	return text, err
}

func (c *Client) Unmount(ctx context.Context, detach bool) error {
	return c.Call(ctx, verbUnmount, unmountRequest{detach}, nil)
}

func (c *Client) Upgrade(ctx context.Context, program string) error {
	return c.Call(ctx, verbUpgrade, upgradeRequest{program}, nil)
}
