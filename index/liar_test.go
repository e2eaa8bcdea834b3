package index

import (
	"bufio"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/thawfs/thaw/index/pack"
)

const liarEnv = "THAW_TEST_LIAR" // makes the test binary a keeper that lies in the way it says

// lies are the wrong answers of a keeper, by what is asked.
var lies = map[string]func(q question) (kind byte, answer []byte){
	"refs of other pages": func(q question) (byte, []byte) {
		r := rand.New(rand.NewPCG(1, uint64(len(q.content))))
		switch q.kind {
		case keepPages:
			var refs []uint64
			for range len(q.content) / pageKeySize {
				refs = append(refs, uint64(pack.MakeRef(r.Uint64N(4), uint32(r.IntN(900)))))
			}
			return keepDone, appendPageRefs(nil, refs)
		case keepGet:
			if q.content[0] == rowNode {
				ref := uint64(pack.MakeRef(1, uint32(r.IntN(4))))
				b, _ := appendRow(nil, row{q.content, binary.BigEndian.AppendUint64(nil, ref)})
				return keepDone, b
			}
		}
		return keepDone, nil
	},
	"refs to nowhere": func(q question) (byte, []byte) {
		if q.kind == keepPages {
			b := make([]byte, len(q.content)/pageKeySize*8)
			for i := range b {
				b[i] = 0xff
			}
			return keepDone, b
		}
		return keepDone, nil
	},
	"too few refs": func(q question) (byte, []byte) {
		if q.kind == keepPages {
			return keepDone, make([]byte, 8*(len(q.content)/pageKeySize-1))
		}
		return keepDone, nil
	},
	"a scan without end": func(q question) (byte, []byte) {
		if q.kind == keepScan {
			b, _ := appendRow(nil, row{packKey(1), []byte{0, 1}})
			return keepDone, b
		}
		return keepDone, nil
	},
	"rows cut short": func(q question) (byte, []byte) {
		if q.kind == keepScan {
			return keepDone, []byte{60, rowPack, 1}
		}
		return keepDone, nil
	},
	"another key's row": func(q question) (byte, []byte) {
		b, _ := appendRow(nil, row{metaKey("other"), []byte{keyVersion}})
		return keepDone, b
	},
	"another kind of answer": func(question) (byte, []byte) { return 'x', nil },
	"errors":                 func(question) (byte, []byte) { return keepFailed, []byte("no") },
	"all packs are known": func(q question) (byte, []byte) {
		switch {
		case q.kind == keepScan && q.content[0] == rowPack && len(q.content) == 1:
			var b []byte
			for n := range uint64(100) {
				b, _ = appendRow(b, packRowOf(n+1, packInfo{bytes: 77}))
			}
			return keepDone, b
		case q.kind == keepGet && strings.HasSuffix(string(q.content), metaVersion):
			b, _ := appendRow(nil, row{q.content, []byte{keyVersion}})
			return keepDone, b
		case q.kind == keepPages:
			return keepDone, make([]byte, len(q.content)/pageKeySize*8)
		}
		return keepDone, nil
	},
}

// liarMain is a keeper that opens nothing and answers with lies.
func liarMain(how string) int {
	if writeFrame(os.Stdout, keepHello, []byte(keeperHello)) != nil {
		return 1
	}
	in := bufio.NewReader(os.Stdin)
	for {
		kind, content, err := readFrame(in)
		if err != nil {
			return 0
		}
		answer, b := byte(keepDone), []byte(nil)
		switch {
		case kind == keepOpen || kind == keepClose:
		case how == "a frame too long":
			_, _ = os.Stdout.Write([]byte{0xff, 0xff, 0xff, 0xff, keepDone})
			continue
		case how == "half a frame":
			_, _ = os.Stdout.Write([]byte{9, 0, 0, 0, keepDone, 1})
			return 0
		default:
			answer, b = lies[how](question{kind, content})
		}
		if writeFrame(os.Stdout, answer, b) != nil || kind == keepClose {
			return 0
		}
	}
}

// Whatever the keeper of the index answers, what is stored is right.
func TestKeeperLies(t *testing.T) {
	r := rand.New(rand.NewPCG(101, 1))
	base := randomImage(r, 700)
	all := append(sortedKeys(lies), "a frame too long", "half a frame")
	for _, how := range all {
		t.Run(how, func(t *testing.T) {
			liar := func() *exec.Cmd {
				cmd := testKeeper()
				cmd.Env = append(cmd.Env, liarEnv+"="+how)
				return cmd
			}
			s, err := Open(t.Context(), t.TempDir()+"/store",
				OpenOptions{Create: true, Keeper: liar, Log: testLog(t)})
			if err != nil {
				t.Fatal(err)
			}
			want := map[string][]byte{"one": base.bytes()}
			mustImport(t, s, "one", writeSource(t, base.bytes(), nil), nil)
			for _, name := range []string{"two", "three"} {
				img := base.change(r, 60)
				want[name] = img.bytes()
				mustImport(t, s, name, writeSource(t, img.bytes(), nil), []Run{{7, 90}})
			}
			if err := s.Remove(t.Context(), "one"); err != nil {
				t.Fatal(err)
			}
			delete(want, "one")
			if _, err := s.GC(t.Context(), GCOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openKept(t, s.Dir())
			checkClean(t, s, true)
			for name, img := range want {
				m := openImage(t, s, name)
				sameImage(t, m, img)
				m.Close()
			}
		})
	}
}
