package state

// ReportWords is the length of a report, in 32-bit words: gfn, offset, expected, found, version.
const ReportWords = 10

// Ports is the state of the device of a guest program (its section PORTS).
type Ports struct {
	Done     uint64 // units of all time
	PeriodUS uint32
	Ready    uint8
	Words    uint8 // words of a report taken so far
	Pad      uint16
	Word     [ReportWords]uint32
}
