package ram

import "github.com/thawfs/thaw/wss"

// RunsOf lists the runs of a bitmap. If they are too many, runs that lie close to each other are
// joined: some pages more than necessary are saved then.
func RunsOf(b *wss.Bitmap, limit int) []PageRun {
	var runs []PageRun
	for first, n := range b.Runs() {
		runs = append(runs, PageRun{first, n})
	}
	for gap := uint64(1); len(runs) > limit; gap *= 2 {
		joined := runs[:1]
		for _, r := range runs[1:] {
			if last := &joined[len(joined)-1]; r.First-last.End() <= gap {
				last.Count = r.End() - last.First
			} else {
				joined = append(joined, r)
			}
		}
		runs = joined
	}
	return runs
}

func bitmapOf(runs []PageRun, pages uint64) *wss.Bitmap {
	b := wss.NewBitmap(pages)
	for _, r := range runs {
		b.SetRange(r.First, r.Count)
	}
	return b
}

// copyChunk is how many bytes are read at once.
const copyChunk = 1 << 20

// Chunks cuts a run into pieces of a size to be read at once.
func Chunks(r PageRun) (list []PageRun) {
	const step = copyChunk / pageSize
	for at := r.First; at < r.End(); {
		n := min(r.End()-at, step-at%step)
		list = append(list, PageRun{at, n})
		at += n
	}
	return list
}
