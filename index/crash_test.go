package index

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The crash test runs a process that works on a store, kills it at some moment, and looks at what
// it left. The process says what it begins and what it has done; in between, either may be found.

const (
	crashDirEnv  = "THAW_TEST_CRASH_DIR" // makes the test binary that process
	crashSeedEnv = "THAW_TEST_CRASH_SEED"
	crashImages  = 3
)

// crashImage is source number i, made anew in each process.
func crashImage(i int) testImage {
	base := randomImage(rand.New(rand.NewPCG(70, 7)), 3000)
	return base.change(rand.New(rand.NewPCG(71, uint64(i))), 40*i)
}

// crashMain is the process to be killed: it works until then.
func crashMain(dir string) int {
	ctx := context.Background()
	seed, _ := strconv.ParseUint(os.Getenv(crashSeedEnv), 10, 64)
	r := rand.New(rand.NewPCG(seed, 1))
	store := filepath.Join(dir, "store")
	s, err := Open(ctx, store,
		OpenOptions{Create: true, Keeper: testKeeper, Wait: time.Minute, Keys: keysFor(store)})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	if r.IntN(2) == 0 {
		s.limits.tailPages = 0
	}
	for i := 0; ; i++ {
		if err := crashStep(ctx, s, r, dir, fmt.Sprintf("s%d-%d", seed, i)); err != nil {
			fmt.Println("error", err)
			return 1
		}
	}
}

func crashStep(ctx context.Context, s *Store, r *rand.Rand, dir, name string) error {
	list, err := s.List(ctx)
	if err != nil {
		return err
	}
	switch n := r.IntN(10); {
	case n < 5 || len(list) == 0:
		img := r.IntN(crashImages)
		src, err := OpenSource(filepath.Join(dir, fmt.Sprint(img)))
		if err != nil {
			return err
		}
		var set []Run
		if r.IntN(2) == 0 {
			set = []Run{{uint64(r.IntN(1000)), 500}}
		}
		fmt.Println("begin import", name, img)
		_, _, err = s.Import(ctx, src, ImportOptions{Name: name, WorkingSet: set})
		fmt.Println("end import", name, img)
		return err
	case n < 7:
		victim := list[r.IntN(len(list))].Name
		fmt.Println("begin remove", victim, 0)
		err := s.Remove(ctx, victim)
		fmt.Println("end remove", victim, 0)
		return err
	case n < 8:
		_, err := s.SetWorkingSet(ctx, list[r.IntN(len(list))].Name, []byte("set"), []Run{{7, 300}})
		return err
	case n < 9:
		_, err := s.Repack(ctx, RepackOptions{Seen: seenOf})
		return err
	default:
		_, err := s.GC(ctx, GCOptions{})
		return err
	}
}

func TestKilled(t *testing.T) {
	dir := t.TempDir()
	images := make([][]byte, crashImages)
	for i := range images {
		images[i] = crashImage(i).bytes()
		writeSparse(t, filepath.Join(dir, fmt.Sprint(i)), images[i])
	}
	rounds := fewer(12, 4)
	r := newRand(t)
	if r.IntN(2) == 0 {
		makeSealed(t, filepath.Join(dir, "store"))
	}
	have := map[string]int{} // name -> image
	for round := range rounds {
		out := runAndKill(t, dir, round, time.Duration(30+r.IntN(700))*time.Millisecond)
		unsure := replay(t, out, have)
		verifyKilled(t, dir, images, have, unsure)
	}
}

// runAndKill returns what the process said until it was killed.
func runAndKill(t *testing.T, dir string, seed int, after time.Duration) string {
	t.Helper()
	cmd := thisBinary()
	cmd.Env = append(os.Environ(), crashDirEnv+"="+dir, crashSeedEnv+"="+fmt.Sprint(seed))
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	out, err := io.ReadAll(pipe)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	return string(out)
}

// replay follows what the process said. It gives the checkpoint that it was importing or removing
// when it died.
func replay(t *testing.T, out string, have map[string]int) (unsure string) {
	t.Helper()
	sc := bufio.NewScanner(strings.NewReader(out))
	for sc.Scan() {
		var when, what, name string
		var img int
		if _, err := fmt.Sscan(sc.Text(), &when, &what, &name, &img); err != nil {
			t.Fatalf("the process said %q", sc.Text())
		}
		switch {
		case when == "begin":
			unsure = name
			if what == "import" {
				have[name] = img
			}
		case what == "import":
			unsure = ""
		default:
			unsure = ""
			delete(have, name)
		}
	}
	return unsure
}

// verifyKilled looks at the store. Of the unsure one it takes what it finds.
func verifyKilled(t *testing.T, dir string, images [][]byte, have map[string]int, unsure string) {
	t.Helper()
	// The keeper of the process that was killed may take a moment to end.
	store := filepath.Join(dir, "store")
	s, err := Open(context.Background(), store,
		OpenOptions{Create: true, Keeper: testKeeper, Wait: time.Minute, Log: testLog(t), Keys: keysFor(store)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	list, err := s.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, c := range list {
		found[c.Name] = true
		img, ok := have[c.Name]
		if !ok {
			t.Fatalf("%s came back", c.Name)
		}
		m := openImage(t, s, c.Name)
		got := make([]byte, len(images[img]))
		if err := m.ReadRange(0, got); err != nil || !bytes.Equal(got, images[img]) {
			t.Fatalf("%s differs: %v", c.Name, err)
		}
		m.Close()
	}
	for name := range have {
		if !found[name] && name != unsure {
			t.Fatalf("%s is lost", name)
		}
		if !found[name] {
			delete(have, name)
		}
	}
	checkClean(t, s, true)
}
