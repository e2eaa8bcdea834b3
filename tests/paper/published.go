package main

// figures are published ones of a restore; zero is what the paper does not tell.
type figures struct {
	prefetched, hits, lazy uint64
	recall, precision      float64 // percent
	ttr, back              float64 // seconds; TTR at the utilisation of the workload
}

// paper is what VEE 2011 tells of a workload.
type paper struct {
	name    string
	u       float64 // the utilisation of its TTR
	methods map[string]figures
	note    string
}

// published are the figures of VEE 2011. Its eager and lazy restores are of a plain image, so they
// stand at raw-eager and raw-lazy. It gives one time for a working-set restore and not one for each
// estimate; that stands at trace.
func published(workload string) paper {
	switch workload {
	case "stream":
		return paper{"MPlayer", 0.8, map[string]figures{
			"access":    {prefetched: 10114, hits: 8617, lazy: 343, recall: 96.2, precision: 85.2},
			"trace":     {10113, 10084, 84, 99.2, 99.7, 11, 4},
			"raw-eager": {ttr: 32, back: 32},
			"raw-lazy":  {lazy: 1548, ttr: 43.3, back: 35},
		}, "MPlayer's frame buffer of 128 MB adds some 5 s to its TTRs"}
	case "heap":
		return paper{"SPECjbb", 0.7, map[string]figures{
			"access":    {prefetched: 83471, hits: 30501, lazy: 442, recall: 98.6, precision: 37},
			"trace":     {47082, 47082, 47, 99.9, 100, 9.8, 9},
			"raw-eager": {ttr: 32, back: 32},
			"raw-lazy":  {lazy: 1623, ttr: 22.8, back: 20},
		}, ""}
	case "idle":
		return paper{"idle RHEL 4", 0.8, map[string]figures{
			"raw-eager": {ttr: 32}, "raw-lazy": {ttr: 32},
		}, "the set was 3 % of 1 GB; a lazy restore hardly ran for 20 s"}
	}
	return paper{"random touch", 0.8, map[string]figures{"raw-eager": {ttr: 32}},
		"lazy was worse than 32 s at every size; a working-set restore was better than lazy and " +
			"slightly worse than eager, with TTR(1 s, 60 %) below 35 s except at 80 %"}
}
