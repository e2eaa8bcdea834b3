package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/thawfs/thaw/index/pack"
)

const liarEnv = "THAW_TEST_LIAR" // makes the test binary a keeper that lies in the way it says

// liar is a keeper that opens nothing and lies in one way.
type liar string

// lies are the ways.
var lies = []liar{
	"refs of other pages", "refs to nowhere", "too few refs", "a scan without end", "a scan without keys",
	"half a row", "another version", "another node", "errors", "all packs are known",
	"no answer of its kind", "noise", "half an answer", "an answer without end",
}

func (l liar) err() error {
	if l == "errors" {
		return errors.New("no")
	}
	return nil
}

func (l liar) Version(_ int, version *string) error {
	*version = keeperVersion
	if l == "another version" {
		*version = "thaw-keeper 77"
	}
	return nil
}

func (l liar) Open(indexPlace, *int) error { return nil }

func (l liar) Pages(keys []byte, refs *[]byte) error {
	r := rand.New(rand.NewPCG(1, uint64(len(keys))))
	for range len(keys) / pageKeySize {
		ref := uint64(0)
		switch l {
		case "refs of other pages":
			ref = uint64(pack.MakeRef(r.Uint64N(4), uint32(r.IntN(900))))
		case "refs to nowhere":
			ref = ^uint64(0)
		}
		*refs = binary.LittleEndian.AppendUint64(*refs, ref)
	}
	if l == "too few refs" {
		*refs = (*refs)[8:]
	}
	return l.err()
}

func (l liar) Get(key []byte, value *[]byte) error {
	switch {
	case l == "another node" || l == "refs of other pages" && key[0] == rowNode:
		*value = binary.BigEndian.AppendUint64(nil, uint64(pack.MakeRef(1, 2)))
	case l == "all packs are known" && strings.HasSuffix(string(key), metaVersion):
		*value = []byte{keyVersion}
	}
	return l.err()
}

func (l liar) Update([]string, *int) error { return l.err() }

func (l liar) Scan(from []byte, rows *[]string) error {
	switch {
	case l == "a scan without end":
		*rows = stringsOf([]row{{packKey(1), []byte{0, 1}}})
	case l == "a scan without keys":
		*rows = []string{"", ""}
	case l == "half a row":
		*rows = []string{string(packKey(1))}
	case l == "all packs are known" && len(from) == 1 && from[0] == rowPack:
		for n := range uint64(100) {
			*rows = append(*rows, stringsOf([]row{packRowOf(n+1, packInfo{bytes: 77})})...)
		}
	}
	return l.err()
}

func (l liar) Close(int, *int) error { return nil }

// liarMain is the process of a liar.
func liarMain(how string) int {
	methods := methodsOf(liar(how))
	switch how {
	case "no answer of its kind":
		methods["Scan"] = methodOf(func(_ []byte, n *int) error { *n = 7; return nil })
	case "noise", "half an answer", "an answer without end":
		methods["Scan"] = methodOf(func([]byte, *[]string) error { garble(how); return nil })
	}
	if serveKeeper(methods) != nil {
		return 1
	}
	return 0
}

// garble does not speak the protocol.
func garble(how string) {
	switch how {
	case "noise":
		_, _ = os.Stdout.Write(bytes.Repeat([]byte{0xf8, 0x7f, 0xff}, 1000))
	case "half an answer":
		_, _ = os.Stdout.Write([]byte{100, 1, 2})
	case "an answer without end":
		_, err := os.Stdout.Write([]byte{0xfc, 0x40, 0, 0, 0}) // 1 GiB follow
		for zeros := make([]byte, 1<<20); err == nil; {
			_, err = os.Stdout.Write(zeros)
		}
	}
	os.Exit(0)
}

// An answer without end does not fill the memory.
func TestKeeperAnswersWithoutEnd(t *testing.T) {
	lock, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	cmd := testKeeper()
	cmd.Env = append(cmd.Env, liarEnv+"=an answer without end")
	k, err := startKeeper(t.Context(), cmd, lock, indexPlace{Dir: t.TempDir()}, keeperTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer k.kill()
	if _, err := k.scan(t.Context(), rowPack, nil); !errors.Is(err, errAnswer) {
		t.Errorf("%v, want %v", err, errAnswer)
	}
}

// Whatever the keeper of the index answers, what is stored is right.
func TestKeeperLies(t *testing.T) {
	r := rand.New(rand.NewPCG(101, 1))
	base := randomImage(r, 700)
	for _, how := range lies {
		t.Run(string(how), func(t *testing.T) {
			liar := func() *exec.Cmd {
				cmd := testKeeper()
				cmd.Env = append(cmd.Env, liarEnv+"="+string(how))
				return cmd
			}
			s, err := Open(t.Context(), t.TempDir()+"/store",
				OpenOptions{Create: true, Keeper: liar, Log: testLog(t)})
			if err != nil {
				t.Fatal(err)
			}
			s.limits.tailPages = 0
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
