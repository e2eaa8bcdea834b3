package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Scripts under testdata/script are command lines and what must come of them, in the language of
// rogpeppe/go-internal's testscript as far as it is used here, in txtar archives:
//
//	thaw ARGS              run thaw; "! thaw ARGS" must fail. Any other program: exec NAME ARGS
//	stdout RE, stderr RE   the last run printed it ("! stdout RE": did not)
//	status NAME            the last run ended with this code of package exitcode
//	cmp A B                equal files; A may be "stdout" or "stderr"
//	exists F, ! exists F, mkdir D, rm F, cp A B
//	image F SIZE SEED      make a memory image, a third of it zero pages, sparse
//	flip F OFFSET          change one byte; a negative offset counts from the end
//	kill MNT               kill -9 the server of a mount and wait until it is gone
//	needs root|fuse        skip where the host lacks it
//
// $WORK is the script's own directory, its working directory and the home of the archive's files.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			t.Parallel()
			runScript(t, f)
		})
	}
}

// scriptTimeout bounds one command of a script.
const scriptTimeout = time.Minute

type script struct {
	t              *testing.T
	dir            string
	stdout, stderr string
	code           int
}

func runScript(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, dir: t.TempDir()}
	t.Cleanup(s.unmountAll)
	lines, files := splitArchive(string(text))
	for name, content := range files {
		path := filepath.Join(s.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
			os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for i, line := range lines {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := s.line(line); err != nil {
			t.Fatalf("%s:%d: %s\n%v\nstatus %d\nstdout:\n%s\nstderr:\n%s", file, i+1, line, err, s.code,
				s.stdout, s.stderr)
		}
	}
}

// splitArchive takes a txtar archive apart: the script before the first file, and the files.
func splitArchive(text string) (lines []string, files map[string]string) {
	files = map[string]string{}
	name := ""
	for line := range strings.Lines(text) {
		if f, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok && strings.HasSuffix(f, " --") {
			name = strings.TrimSuffix(f, " --")
			files[name] = ""
		} else if name != "" {
			files[name] += line
		} else {
			lines = append(lines, line)
		}
	}
	return lines, files
}

func (s *script) line(line string) error {
	words, err := splitWords(strings.ReplaceAll(line, "$WORK", s.dir))
	if err != nil {
		return err
	}
	want := words[0] != "!"
	if !want {
		words = words[1:]
	}
	switch words[0] {
	case "thaw", "exec":
		err := s.exec(words)
		if (err == nil) != want {
			return fmt.Errorf("ended so: %v", err)
		}
		return nil
	case "exists":
		_, err := os.Lstat(s.path(words[1]))
		if (err == nil) != want {
			return fmt.Errorf("exists: %v", err)
		}
		return nil
	case "stdout", "stderr":
		re, err := regexp.Compile("(?m)" + words[1])
		if err != nil {
			return err
		}
		if re.MatchString(map[string]string{"stdout": s.stdout, "stderr": s.stderr}[words[0]]) != want {
			return errors.New("matches not as it should")
		}
		return nil
	}
	return s.command(words[0], words[1:])
}

func (s *script) command(name string, args []string) error {
	switch name {
	case "status":
		return s.status(args[0])
	case "cmp":
		a, err := s.read(args[0])
		if err != nil {
			return err
		}
		b, err := s.read(args[1])
		if err == nil && !bytes.Equal(a, b) {
			err = fmt.Errorf("%s (%d bytes) and %s (%d bytes) differ", args[0], len(a), args[1], len(b))
		}
		return err
	case "mkdir":
		return os.MkdirAll(s.path(args[0]), 0o755)
	case "rm":
		return os.RemoveAll(s.path(args[0]))
	case "cp":
		data, err := s.read(args[0])
		if err != nil {
			return err
		}
		return os.WriteFile(s.path(args[1]), data, 0o644)
	case "image":
		return makeImage(s.path(args[0]), args[1], args[2])
	case "flip":
		return flip(s.path(args[0]), args[1])
	case "kill":
		return s.kill(args[0])
	case "needs":
		s.needs(args[0])
		return nil
	}
	return fmt.Errorf("no such command: %s", name)
}

// splitWords splits at blanks, but not within 'single quotes'.
func splitWords(line string) (words []string, err error) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if line[0] != '\'' {
			word, rest, _ := strings.Cut(line, " ")
			words, line = append(words, word), rest
			continue
		}
		word, rest, ok := strings.Cut(line[1:], "'")
		if !ok {
			return nil, errors.New("a quote is not closed")
		}
		words, line = append(words, word), rest
	}
	return words, nil
}

func (s *script) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.dir, name)
}

func (s *script) read(name string) ([]byte, error) {
	switch name {
	case "stdout":
		return []byte(s.stdout), nil
	case "stderr":
		return []byte(s.stderr), nil
	}
	return os.ReadFile(s.path(name))
}

// exec runs a program in a process of its own. Its output goes to files: a server that it leaves
// behind would hold a pipe open.
func (s *script) exec(words []string) error {
	// Not the test's context: cleaning up comes after its end.
	ctx, cancel := context.WithTimeout(context.Background(), scriptTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	if words[0] == "thaw" {
		cmd.Path, cmd.Err = "/proc/self/exe", nil
	} else {
		cmd = exec.CommandContext(ctx, words[1], words[2:]...)
	}
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), asCommand+"=1", "PWD="+s.dir)
	outputs := s.t.TempDir()
	stdout, err := os.Create(filepath.Join(outputs, "stdout"))
	if err != nil {
		return err
	}
	defer stdout.Close()
	stderr, err := os.Create(filepath.Join(outputs, "stderr"))
	if err != nil {
		return err
	}
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err = cmd.Run()
	out, _ := os.ReadFile(stdout.Name())
	diag, _ := os.ReadFile(stderr.Name())
	s.stdout, s.stderr, s.code = string(out), string(diag), cmd.ProcessState.ExitCode()
	if s.code == 2 || ctx.Err() != nil {
		s.t.Errorf("%v: crashed or took more than %v: %v\n%s", words, scriptTimeout, err, diag)
	}
	return err
}

func (s *script) needs(what string) {
	switch what {
	case "root":
		if os.Geteuid() != 0 {
			s.t.Skip("needs root")
		}
	case "fuse":
		if err := usableHost(); err != nil {
			s.t.Skipf("needs /dev/fuse: %v", err)
		}
		if _, err := exec.LookPath("fusermount3"); err != nil && os.Geteuid() != 0 {
			s.t.Skip("needs root, or fusermount3 (package fuse3)")
		}
	}
}

// kill kills the server of a mount, which stays behind, dead.
func (s *script) kill(mnt string) error {
	ref, err := resolveMount(s.path(mnt))
	if err != nil {
		return err
	}
	client, err := ref.server(s.t.Context())
	if err != nil {
		return err
	}
	st, err := call[serverStatus](s.t.Context(), client, verbStatus, struct{}{}, nil)
	if err != nil {
		return err
	}
	p, err := os.FindProcess(st.PID)
	if err != nil {
		return err
	}
	end := watchProcess(st.PID)
	defer end.Close()
	if err := p.Kill(); err != nil {
		return err
	}
	if !end.wait(scriptTimeout) {
		return errors.New("the server survives kill -9")
	}
	return nil
}

// unmountAll ends every mount below the script's directory, however it is.
func (s *script) unmountAll() {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		s.t.Error(err)
		return
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 5 || !strings.HasPrefix(f[4], s.dir+"/") {
			continue
		}
		s.t.Logf("left behind: %s", f[4])
		if err := s.exec([]string{"thaw", "umount", "--abort", f[4]}); err != nil {
			s.t.Errorf("%v\n%s", err, s.stderr)
		}
	}
}
