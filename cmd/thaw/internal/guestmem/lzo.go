package guestmem

import "errors"

// errLZO is the error for a block that cannot be decompressed.
var errLZO = errors.New("a block is damaged")

// lzo1x decompresses a block of LZO1X into a block of so many bytes, appended to out. The block is a row of
// instructions: copy the next bytes of the block (literals), or bytes that came before (a match). What an
// instruction below 16 means depends on how many literals came last: 0, 1 to 3, or more.
func lzo1x(out, in []byte, size int) ([]byte, error) {
	d := lzoDecoder{in: in, out: out, size: size}
	if first := d.peek(); first > 17 {
		d.at++
		d.literals(first - 17)
	}
	for !d.ended && !d.bad {
		d.instruction()
	}
	if d.bad || d.at != len(d.in) || len(d.out) != size {
		return nil, errLZO
	}
	return d.out, nil
}

// lzoDecoder is the state of the decompression.
type lzoDecoder struct {
	in, out    []byte
	at         int // in in
	size       int // of out at the end
	last       int // literals that came last; 4 for more than 3
	ended, bad bool
}

// peek is the next byte; 0 behind the end, which is bad.
func (d *lzoDecoder) peek() int {
	if d.at >= len(d.in) {
		d.bad = true
		return 0
	}
	return int(d.in[d.at])
}

func (d *lzoDecoder) next() int {
	b := d.peek()
	d.at++
	return b
}

// length reads the rest of a length that does not fit its instruction: 255 for each zero, then a byte.
func (d *lzoDecoder) length(base int) int {
	for !d.bad && d.peek() == 0 {
		d.at++
		base += 255
		if base > d.size+len(d.in) {
			d.bad = true
		}
	}
	return base + d.next()
}

// literals copies the next n bytes.
func (d *lzoDecoder) literals(n int) {
	if n > len(d.in)-d.at || n > d.size-len(d.out) {
		d.bad = true
		return
	}
	d.out = append(d.out, d.in[d.at:d.at+n]...)
	d.at += n
	d.last = min(n, 4)
}

// match copies n bytes from so far back; they may overlap with what is written. Up to 3 literals follow.
func (d *lzoDecoder) match(back, n, literals int) {
	if d.bad || back > len(d.out) || n > d.size-len(d.out) {
		d.bad = true
		return
	}
	for from := len(d.out) - back; n > 0; n-- {
		d.out = append(d.out, d.out[from])
		from++
	}
	d.literals(literals)
}

func (d *lzoDecoder) instruction() {
	switch t := d.next(); {
	case d.bad:
	case t >= 64:
		d.match(1+t>>2&7+d.next()<<3, t>>5+1, t&3)
	case t >= 32:
		n := t & 31
		if n == 0 {
			n = d.length(31)
		}
		off := d.next() | d.next()<<8
		d.match(1+off>>2, n+2, off&3)
	case t >= 16:
		n := t & 7
		if n == 0 {
			n = d.length(7)
		}
		off := d.next() | d.next()<<8
		back := t&8<<11 + off>>2
		if back == 0 {
			d.ended = true
			return
		}
		d.match(back+0x4000, n+2, off&3)
	case d.last == 0:
		if t == 0 {
			t = d.length(15)
		}
		n := t + 3
		if d.literals(n); !d.bad {
			d.last = 4
		}
	case d.last < 4:
		d.match(1+t>>2+d.next()<<2, 2, t&3)
	default:
		d.match(1+0x800+t>>2+d.next()<<2, 3, t&3)
	}
}
