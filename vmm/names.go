package vmm

// Names of the files of a checkpoint directory.
const (
	memoryFile = "memory"
	stateFile  = "state"
	infoFile   = "info.json"
)
