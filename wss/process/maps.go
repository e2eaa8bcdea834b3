package process

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// mapping is a line of /proc/PID/maps.
type mapping struct {
	start, end, offset uint64
	shared, writable   bool
	device             string // "00:01"
	inode              uint64
	path               string
}

func (m mapping) bytes() uint64 { return m.end - m.start }

// parseMaps reads mappings of files: "7f3f00000000-7f4000000000 rw-s 00000000 00:01 1027 /memfd:ram".
func parseMaps(r io.Reader) (all []mapping, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var m mapping
		fields := strings.SplitN(lines.Text(), " ", 6)
		if len(fields) < 5 || len(fields[1]) < 4 {
			return nil, fmt.Errorf("a line of maps: %q", lines.Text())
		}
		start, end, _ := strings.Cut(fields[0], "-")
		for _, f := range []struct {
			to   *uint64
			text string
			base int
		}{{&m.start, start, 16}, {&m.end, end, 16}, {&m.offset, fields[2], 16}, {&m.inode, fields[4], 10}} {
			if *f.to, err = strconv.ParseUint(f.text, f.base, 64); err != nil {
				return nil, fmt.Errorf("a line of maps: %q: %w", lines.Text(), err)
			}
		}
		if m.end <= m.start {
			return nil, fmt.Errorf("a line of maps: %q", lines.Text())
		}
		m.writable, m.shared = fields[1][1] == 'w', fields[1][3] == 's'
		m.device = fields[3]
		if len(fields) == 6 {
			m.path = strings.TrimSpace(fields[5])
		}
		all = append(all, m)
	}
	return all, lines.Err()
}
