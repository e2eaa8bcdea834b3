package qemu

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// parseWords parses the answer to `xp /512xg`, a page of memory as words of 8 bytes, several on a line:
// "0000000000001000: 0x0000000000000067 0x0000000000000000".
func parseWords(text string) ([]byte, error) {
	var page []byte
	for in := bufio.NewScanner(strings.NewReader(text)); in.Scan(); {
		_, words, _ := strings.Cut(in.Text(), ":")
		for _, word := range strings.Fields(words) {
			v, err := strconv.ParseUint(word, 0, 64)
			if err != nil {
				return nil, err
			}
			page = binary.LittleEndian.AppendUint64(page, v)
		}
	}
	if len(page) != pageSize {
		return nil, fmt.Errorf("%d bytes, want %d", len(page), pageSize)
	}
	return page, nil
}
