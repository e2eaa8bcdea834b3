package wss

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// magic is the first line of the record; the number is the version of the format.
const magic = "thaw-working-set 1"

// Limits of the text, on top of those of the set.
const (
	maxLine    = 1024 // bytes, without the newline
	maxHeader  = 64   // lines
	maxSources = 64   // distinct names in one file
)

// ParseError says what is wrong in which line of a record. It matches ErrBadSet.
type ParseError struct {
	Line int // from 1; 0: the whole
	What string
}

func (e *ParseError) Error() string {
	if e.Line == 0 {
		return "working set: " + e.What
	}
	return fmt.Sprintf("working set, line %d: %s", e.Line, e.What)
}

// Is makes errors.Is(err, ErrBadSet) true.
func (e *ParseError) Is(target error) bool { return target == ErrBadSet }

// Parse reads a record and validates it. Malformed input gives a *ParseError or another error that
// matches ErrBadSet; an error of the reader is returned as it is. Memory and time are bounded by
// the limits of this package whatever the reader delivers.
func Parse(r io.Reader) (*Set, error) {
	p := parser{in: bufio.NewReaderSize(r, maxLine+2), names: map[string]Source{}}
	if err := p.header(); err != nil {
		return nil, err
	}
	if err := p.runs(); err != nil {
		return nil, err
	}
	if err := p.set.Validate(p.set.ImagePages); err != nil {
		return nil, err
	}
	return &p.set, nil
}

type parser struct {
	in    *bufio.Reader
	line  int
	set   Set
	names map[string]Source // sources seen, so that a run does not cost a string
}

func (p *parser) errorf(format string, args ...any) error {
	return &ParseError{Line: p.line, What: fmt.Sprintf(format, args...)}
}

// next returns the next line without its newline; it is good until the next call. io.EOF: no more.
func (p *parser) next() ([]byte, error) {
	p.line++
	text, err := p.in.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull || len(text) > maxLine+1:
		return nil, p.errorf("longer than %d bytes", maxLine)
	case err == io.EOF && len(text) > 0:
		return nil, p.errorf("cut off: no newline at its end")
	case err == io.EOF:
		return nil, io.EOF
	case err != nil:
		return nil, fmt.Errorf("read working set: %w", err)
	}
	return text[:len(text)-1], nil
}

// header reads up to and with the blank line.
func (p *parser) header() error {
	first, err := p.next()
	switch {
	case err == io.EOF:
		return p.errorf("empty")
	case err != nil:
		return err
	case string(first) != magic:
		if v, ok := strings.CutPrefix(string(first), "thaw-working-set "); ok {
			return p.errorf("version %.20q; this thaw reads version 1", v)
		}
		return p.errorf("not a working set (it does not begin with %q)", magic)
	}
	seen := map[string]bool{}
	for p.line <= maxHeader {
		text, err := p.next()
		switch {
		case err == io.EOF:
			return p.errorf("the blank line after the header is missing")
		case err != nil:
			return err
		case len(text) == 0:
			if !seen["pages"] {
				return p.errorf("the header lacks %q", "pages")
			}
			return nil
		}
		key, value, _ := strings.Cut(string(text), " ")
		if seen[key] {
			return p.errorf("a second %.40q", key)
		}
		seen[key] = true
		if err := p.field(key, value); err != nil {
			return err
		}
	}
	return p.errorf("more than %d header lines", maxHeader)
}

func (p *parser) field(key, value string) (err error) {
	s := &p.set
	if !cleanField(key, value) {
		return p.errorf("control bytes or a bad key in the header")
	}
	switch key {
	case "pages":
		var ok bool
		if s.ImagePages, ok = number([]byte(value)); !ok || s.ImagePages == 0 ||
			s.ImagePages > MaxImagePages {
			return p.errorf("pages %.40q", value)
		}
	case "window":
		if s.Window, err = time.ParseDuration(value); err != nil || s.Window < 0 ||
			s.Window > MaxTime {
			return p.errorf("window %.40q", value)
		}
	case "way":
		s.Way = value
	case "created":
		if s.Created, err = time.Parse(time.RFC3339Nano, value); err != nil {
			return p.errorf("created %.40q", value)
		}
	default:
		s.Extra = append(s.Extra, Field{key, value})
	}
	return nil
}

// runs reads the lines after the header.
func (p *parser) runs() error {
	for {
		text, err := p.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(p.set.Runs) == MaxRuns {
			return p.errorf("more than %d runs", MaxRuns)
		}
		r, err := p.run(text)
		if err != nil {
			return err
		}
		if err := r.check(p.set.ImagePages); err != nil {
			return p.errorf("%v", err)
		}
		p.set.Runs = append(p.set.Runs, r)
	}
}

// run reads `gfn count us source [vcpu]`. Fields after these are for later versions: left out.
func (p *parser) run(text []byte) (Run, error) {
	r := Run{VCPU: NoVCPU}
	var us uint64
	var err error
	if r.GFN, text, err = p.number("gfn", text); err != nil {
		return r, err
	}
	if r.Count, text, err = p.number("count", text); err != nil {
		return r, err
	}
	if us, text, err = p.number("microseconds", text); err != nil {
		return r, err
	}
	if us > uint64(MaxTime/time.Microsecond) {
		return r, p.errorf("%d microseconds", us)
	}
	r.At = time.Duration(us) * time.Microsecond
	word, rest := cutWord(text)
	source, ok := p.names[string(word)] // no string is made for the look-up
	if !ok {
		source = Source(word)
		if len(p.names) == maxSources {
			return r, p.errorf("more than %d sources", maxSources)
		}
		p.names[string(word)] = source
	}
	r.Source = source
	if word, _ = cutWord(rest); len(word) > 0 && string(word) != "-" {
		n, ok := number(word)
		if !ok || n > MaxVCPU {
			return r, p.errorf("vCPU: %.40q is not a number up to %d", word, MaxVCPU)
		}
		r.VCPU = int(n)
	}
	return r, nil
}

// number cuts a number off the text.
func (p *parser) number(name string, text []byte) (n uint64, rest []byte, err error) {
	word, rest := cutWord(text)
	n, ok := number(word)
	if !ok {
		return 0, nil, p.errorf("%s: %.40q is not a number", name, word)
	}
	return n, rest, nil
}

func cutWord(text []byte) (word, rest []byte) {
	for i, c := range text {
		if c == ' ' {
			return text[:i], text[i+1:]
		}
	}
	return text, nil
}

// number reads plain decimal digits, as they are written here: no sign, no leading zero. At most 18
// digits, so that nothing overflows.
func number(word []byte) (uint64, bool) {
	if len(word) == 0 || len(word) > 18 || (word[0] == '0' && len(word) > 1) {
		return 0, false
	}
	var n uint64
	for _, c := range word {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

// cleanField says whether a header line can be written and read again.
func cleanField(key, value string) bool {
	return key != "" && len(key)+1+len(value) <= maxLine &&
		!strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) &&
		!strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// checkHeader finds what the text form cannot say.
func (s *Set) checkHeader() error {
	seen := map[string]bool{"pages": true, "window": true, "way": true, "created": true}
	if len(s.Extra) > maxHeader-len(seen)-2 {
		return badSet("%d header lines", len(s.Extra))
	}
	if !cleanField("way", s.Way) {
		return badSet("way %.40q", s.Way)
	}
	for _, f := range s.Extra {
		if seen[f.Key] || !cleanField(f.Key, f.Value) {
			return badSet("header line %.40q", f.Key)
		}
		seen[f.Key] = true
	}
	return nil
}

// WriteTo writes the record as text. The set should be valid: what Parse would refuse is not
// checked here. It implements io.WriterTo.
func (s *Set) WriteTo(w io.Writer) (int64, error) {
	c := counter{w: w}
	out := bufio.NewWriter(&c)
	fmt.Fprintf(out, "%s\npages %d\n", magic, s.ImagePages)
	if s.Window > 0 {
		fmt.Fprintf(out, "window %v\n", s.Window)
	}
	if s.Way != "" {
		fmt.Fprintf(out, "way %s\n", s.Way)
	}
	if !s.Created.IsZero() {
		fmt.Fprintf(out, "created %s\n", s.Created.Format(time.RFC3339Nano))
	}
	for _, f := range s.Extra {
		fmt.Fprintf(out, "%s %s\n", f.Key, f.Value)
	}
	out.WriteByte('\n')
	line := make([]byte, 0, 128)
	for _, r := range s.Runs {
		line = append(strconv.AppendUint(line[:0], r.GFN, 10), ' ')
		line = append(strconv.AppendUint(line, r.Count, 10), ' ')
		line = append(strconv.AppendInt(line, r.At.Microseconds(), 10), ' ')
		line = append(line, r.Source...)
		if r.VCPU != NoVCPU {
			line = strconv.AppendInt(append(line, ' '), int64(r.VCPU), 10)
		}
		out.Write(append(line, '\n')) // bufio keeps the first error
	}
	err := out.Flush()
	return c.n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
