package index

import "context"

// Repair is something that was brought back.
type Repair struct {
	Checkpoint string `json:"checkpoint,omitempty"` // whose segment was made again
	Pack       string `json:"pack,omitempty"`       // that was written again
	Pages      int    `json:"pages,omitempty"`      // that were brought back
	What       string `json:"what"`
}

func (c *checker) repair(ctx context.Context) ([]Repair, error) { return nil, nil }
