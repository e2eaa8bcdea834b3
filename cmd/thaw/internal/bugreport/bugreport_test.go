package bugreport

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// Names that are known are replaced wherever they stand by themselves, and in what was logged of names those
// that are not known, too; each by one word.
func TestNames(t *testing.T) {
	n := HideNames()
	n.Hide("store", "/srv/store")
	n.Hide("checkpoint", "web-1")
	n.Hide("checkpoint", "web")
	for _, c := range []struct{ text, want string }{
		{"web-1 and web, web-10, a.web", "checkpoint-1 and checkpoint-2, web-10, a.web"},
		{"webweb web web", "webweb checkpoint-2 checkpoint-2"},
		{"/srv/store/packs/1", "store-1/packs/1"},
		{"open /srv/store: no", "open store-1: no"},
		{"It is web. So", "It is checkpoint-2. So"},
		{"", ""},
		{`level=WARN checkpoint=web-1 x`, `level=WARN checkpoint=checkpoint-1 x`},
		{`msg=a checkpoint=secret err="b"`, `msg=a checkpoint=name-1 err="b"`},
		{`{"msg":"a","checkpoint":"secret","clone":"vm1"}`, `{"msg":"a","checkpoint":"name-1","clone":"name-2"}`},
		{`clone="" file="a b" checkpoint=secret`, `clone="" file=name-3 checkpoint=name-1`},
		{`x{checkpoint="web"} 1`, `x{checkpoint="checkpoint-2"} 1`},
	} {
		if got := n.Text(c.text); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
	var all Names
	if all.Hide("store", "/srv") != "/srv" || all.Text("checkpoint=a") != "checkpoint=a" {
		t.Error("names are replaced that were asked for")
	}
}

// unpack reads an archive.
func unpack(t *testing.T, packed io.Reader) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[head.Name] = string(text)
	}
}

func TestArchive(t *testing.T) {
	r := New(HideNames())
	r.Names.Hide("checkpoint", "web")
	r.AddJSON("a.json", "a value", map[string]int{"x": 1}, nil)
	r.AddText("log.txt", "the log", "it is web\n", nil)
	r.AddText("b.txt", "nothing", "", errors.New("web is gone"))
	var out bytes.Buffer
	if err := r.Write(&out, "a report"); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, &out)
	if files["thaw-report/a.json"] != "{\n  \"x\": 1\n}\n" ||
		files["thaw-report/log.txt"] != "it is checkpoint-1\n" ||
		files["thaw-report/lacking.txt"] != "b.txt: checkpoint-1 is gone\n" || len(files) != 4 {
		t.Errorf("%q", files)
	}
	for _, want := range []string{"a report", "a.json ", "a value", "the log", "lacking.txt"} {
		if !strings.Contains(files["thaw-report/README.txt"], want) {
			t.Errorf("README.txt has no %q:\n%s", want, files["thaw-report/README.txt"])
		}
	}
}

func TestFacts(t *testing.T) {
	host := Host()
	if !strings.Contains(host, "== /proc/version\nLinux") || !strings.Contains(host, "MemTotal") {
		t.Errorf("the host:\n%s", host)
	}
	text, err := Process(os.Getpid())
	if err != nil || !strings.Contains(text, "Max open files") || !strings.Contains(text, "== descriptors\n") {
		t.Errorf("%v\n%s", err, text)
	}
	if _, err := Process(1 << 30); err == nil {
		t.Error("a process that there is not")
	}
}
