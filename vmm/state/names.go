package state

import "github.com/thawfs/thaw/wss"

// Names of the files of a checkpoint directory.
const (
	MemoryFile = "memory"
	StateFile  = "state"
	InfoFile   = "info.json"
	SetFile    = "working-set" // working sets, in the text of package wss
)

const pageSize = wss.PageSize
