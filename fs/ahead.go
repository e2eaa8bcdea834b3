package fs

import "slices"

// ahead pushes for a stream until there is nothing left to push.
func (p *pushers) ahead(j job, h *openImage, sc *scratch) (whole bool, err error) {
	orders := *h.orders.Load()
	for {
		x, more, ok := j.m.streams.take(h, j.of, orders)
		if !ok {
			return true, nil
		}
		if more {
			also := j
			also.do = workAhead
			p.add(also)
		}
		if err := p.part(j, h, x, orders[j.of.order], sc); err != nil {
			return false, err
		}
	}
}

// part reads and pushes one part of a stream. READs of its pages wait until that is done: see coming.
func (p *pushers) part(j job, h *openImage, x part, o Order, sc *scratch) error {
	sc.gfns = o.GFNs(x.first, x.end, sc.gfns[:0])
	if !slices.ContainsFunc(sc.gfns, func(gfn uint64) bool { return j.m.wants(j.sess, gfn) }) {
		return nil
	}
	j.m.coming.begin(sc.gfns)
	defer j.m.coming.end(sc.gfns)
	if j.of.order == 0 {
		return p.byNumber(j, h, x, sc)
	}
	if err := o.Read(p.srv.ctx, x.first, x.end, &sc.piece); err != nil && lostPages(err) == nil {
		return err
	}
	return p.pushPart(j, x, sc)
}

// byNumber is part for the pages by number. Where clusters are, the pages of one lie anywhere in that order,
// and to decode it for those of this part only would be to decode it again for each of the others: so all
// of them are pushed, and pages that came that way are not read again. Who goes through an image has each
// cluster decoded once, but for the markers'.
func (p *pushers) byNumber(j job, h *openImage, x part, sc *scratch) error {
	sc.cold, sc.piece.GFNs = sc.cold[:0], sc.piece.GFNs[:0]
	for _, gfn := range sc.gfns {
		switch _, _, cold := h.mem.Cluster(gfn); {
		case gfn == x.mark || !j.m.wants(j.sess, gfn):
		case cold:
			sc.cold = append(sc.cold, gfn)
		default:
			sc.piece.GFNs = append(sc.piece.GFNs, gfn)
		}
	}
	if err := readRuns(h.mem, &sc.piece); err != nil {
		return err
	}
	if err := p.pushPart(j, x, sc); err != nil {
		return err
	}
	for _, gfn := range sc.cold {
		if !j.m.wants(j.sess, gfn) {
			continue // it came with another one
		}
		if err := p.whole(j, h, gfn, x.mark, sc); err != nil {
			return err
		}
	}
	return nil
}

// readRuns reads the pages that a piece names, which ascend, run by run.
func readRuns(mem Image, p *Piece) error {
	grow(&p.Pages, len(p.GFNs)*PageSize)
	p.Pages = p.Pages[:len(p.GFNs)*PageSize]
	for i := 0; i < len(p.GFNs); {
		n := 1
		for i+n < len(p.GFNs) && p.GFNs[i+n] == p.GFNs[i]+uint64(n) {
			n++
		}
		if err := mem.ReadRange(p.GFNs[i], p.Pages[i*PageSize:(i+n)*PageSize]); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// whole pushes all pages of the cluster that a page lies in, but the marker. While all buffers are in use it
// pushes nothing: READs bring these pages.
func (p *pushers) whole(j job, h *openImage, gfn, mark uint64, sc *scratch) error {
	c, at, there := p.srv.takeCluster(h, gfn)
	if c == nil {
		return nil
	}
	defer p.srv.clusters.give(c)
	if !there {
		if err := p.srv.decode(h, gfn, c); err != nil {
			return err
		}
	}
	h.mem.ClusterPages(&c.Cluster, &sc.piece)
	if slices.Contains(sc.piece.GFNs, gfn) {
		return p.pushWithout(j, &sc.piece, mark)
	}
	// The image has so many pages like this one that nobody takes them for neighbours.
	return p.push(j, &Piece{GFNs: []uint64{gfn}, Pages: c.Pages[at*PageSize:][:PageSize]})
}

// pushPart pushes a part that was read, without the marker, and its last run first: a reader that comes
// to its beginning meanwhile then waits for the whole part, and does not follow close behind the push.
func (p *pushers) pushPart(j job, x part, sc *scratch) error {
	mark := uint64(none)
	if x.first <= x.mark && x.mark < x.end {
		mark = sc.gfns[x.mark-x.first]
	}
	gfns, pages := sc.piece.GFNs, sc.piece.Pages
	for end := len(gfns); end > 0; {
		first := end - 1
		if gfns[first] == mark {
			end = first
			continue
		}
		for first > 0 && gfns[first-1]+1 == gfns[first] && gfns[first-1] != mark {
			first--
		}
		run := Piece{GFNs: gfns[first:end], Pages: pages[first*PageSize : end*PageSize]}
		if err := p.push(j, &run); err != nil {
			return err
		}
		end = first
	}
	return nil
}
