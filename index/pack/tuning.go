package pack

import (
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// tuning is what a profile chooses. None of it is part of the format: a reader takes units of any
// shape. The figures behind the choices are in the package documentation.
type tuning struct {
	codec      codec // of units
	level      zstd.EncoderLevel
	frameCodec codec
	frameLevel zstd.EncoderLevel
	s2         func(dst, src []byte) []byte
	lz4        lz4.CompressionLevel // of units with codecLZ4
	// limits says for units of 2, 4 and 8 pages how large they may be, in stored bytes: 0 if there
	// are to be none.
	limits  [3]int
	cluster clusterTuning
}

// clusterTuning is how clusters are made.
type clusterTuning struct {
	pages  int
	level  zstd.EncoderLevel
	quick  zstd.EncoderLevel // where pages only lose their company, as in a collection
	beside int32             // what the place beside a page of the cluster is worth, in features
}

// coldClusters are the same for both profiles: what is cold is to be small.
var coldClusters = clusterTuning{
	pages: 16, level: zstd.SpeedBestCompression, quick: zstd.SpeedBetterCompression, beside: 6,
}

// limit is the most bytes that a unit of n pages (a power of two, or the rest of a block) may have.
func (t *tuning) limit(n int) int {
	switch {
	case n < 2:
		return PageSize
	case n < 4:
		return t.limits[0]
	case n < 8:
		return t.limits[1]
	default:
		return t.limits[2]
	}
}

// next is how many pages to try in one unit after one whose pages took perPage bytes each:
// neighbours are much alike.
func (t *tuning) next(perPage int) int {
	for n := maxUnitPages; n > 1; n /= 2 {
		if perPage*n <= t.limit(n) {
			return n
		}
	}
	return 1
}

var tunings = [...]tuning{
	ProfileDefault: {
		codec: codecZstd, level: zstd.SpeedDefault, limits: [3]int{1024, 512, 0},
		frameCodec: codecFrame, frameLevel: zstd.SpeedDefault, cluster: coldClusters,
	},
	ProfileFast: {
		codec: codecS2, s2: s2.Encode, // two pages in a unit would save nothing
		// Never used for units, but an encoder has to have a level.
		level:      zstd.SpeedFastest,
		frameCodec: codecFrame, frameLevel: zstd.SpeedFastest, cluster: coldClusters,
	},
}

// hotTuning is for single pages that are to decode in the least time.
var hotTuning = tuning{
	codec: codecLZ4, lz4: lz4.Level1,
	// As those of ProfileFast.
	level:      zstd.SpeedFastest,
	frameCodec: codecFrame, frameLevel: zstd.SpeedFastest,
}
