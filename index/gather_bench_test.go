package index

import (
	"context"
	"testing"
)

// BenchmarkNext imports a later image of a machine into a store with a repacked first one, and repacks. It
// reports by how much the store has grown for each new page, nodes and hashes included, and the processor
// time of the repacking; "apart" is without bringing the versions of pages together.
//
// Of a Python process of 110 MB that was saved four times, with 9,327, 11,312 and 11,037 new pages (zstd -3:
// 829 to 870 B a page; --patch-from the former content of the same pages: 278, 306 and 287) the store grew by
// 239, 306 and 217 B a page, and by 838 apart; a repacking took 6 to 8 s of processor time, and 2.3 s apart.
// Of a Linux guest of 512 MiB that did little, with 735 new pages (371 B; 179), it grew by 276 B. Of another
// one, with 738 new pages, zstd -3 made 394 B a page, --patch-from the former content of the same pages 163,
// and --patch-from all of the former memory 387. Half of the pages are not like their former content, and of
// these 370 only 23 have a fifth of their features in common with any one page of the former memory: what
// --patch-from finds are pieces of pages, all over the former content of those that changed, which a cluster
// of 16 pages does not reach.
//
//	go test -run - -bench Next -benchtime 1x ./index -image FILE -image2 LATER
func BenchmarkNext(b *testing.B) {
	if *imageFlag == "" || *image2Flag == "" {
		b.Skip("no -image and -image2 given")
	}
	ctx := context.Background()
	for what, gather := range map[string]int{"together": minGather, "apart": 1 << 30} {
		b.Run(what, func(b *testing.B) {
			for b.Loop() {
				s := openTest(b, b.TempDir()+"/s", nil)
				s.limits.gatherPages = gather
				repacked := func(name, path string) (fresh uint64, rep RepackReport) {
					src, err := OpenSource(path)
					if err != nil {
						b.Fatal(err)
					}
					_, st, err := s.Import(ctx, src, ImportOptions{Name: name})
					if err != nil {
						b.Fatal(err)
					}
					if rep, err = s.Repack(ctx, RepackOptions{}); err != nil {
						b.Fatal(err)
					}
					return st.NewPages, rep
				}
				repacked("first", *imageFlag)
				first, before := storeBytes(s), cpuTime(b)
				fresh, rep := repacked("later", *image2Flag)
				b.ReportMetric((cpuTime(b) - before).Seconds(), "cpu-s")
				b.ReportMetric(float64(fresh), "new-pages")
				b.ReportMetric(float64(storeBytes(s)-first)/float64(fresh), "B/new-page")
				b.ReportMetric(float64(rep.GatheredPages), "gathered")
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
