package pack

// Tier says how a page is stored when its pack is written again: the colder, the smaller, and the slower
// to read.
type Tier uint8

const (
	// TierKeep leaves a page as it is stored, as far as its company can stay together.
	TierKeep Tier = iota
	// TierHot is a unit of one page that decodes in the least time.
	TierHot
	// TierWarm is what the encoder makes of new pages.
	TierWarm
	// TierCold is a cluster, in the company of pages that are like it. If they take no less there than
	// where they are, they stay.
	TierCold
)
