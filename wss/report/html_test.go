package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/thawfs/thaw/wss"
)

// pageOf is the page of a report.
func pageOf(t *testing.T, r Report) string {
	t.Helper()
	var out bytes.Buffer
	if err := r.WriteHTML(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestHTML(t *testing.T) {
	r := repeated()
	r.Methods = append(r.Methods, NewMethod("raw-lazy", wss.Counts{Lazy: 1}, 0, 20*sec, nil))
	page := pageOf(t, r)
	for _, want := range []string{
		">eager<", ">lazy<", ">access<", ">trace<", ">raw-lazy<", "without thaw", "262,144", "11,181",
		"11,293", "99.9 %", "2.02 s", "1.92 to 2.22 s", "not seen", "recovery", "frames/s",
		"hdd: 10 ms a seek, 100 MB/s", "prefers-color-scheme: dark", "@media print",
		"30 ± 0 frames a second",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	figures := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1)
	if len(figures) != 3 {
		t.Fatalf("%d figures", len(figures))
	}
	for _, svg := range figures {
		texts := checkSVG(t, []byte(svg))
		for _, name := range []string{"eager", "lazy", "access", "trace"} {
			if !strings.Contains(texts, name) {
				t.Errorf("a figure lacks %s: %s", name, texts)
			}
		}
		if at := strings.Index(svg, ":#"); at >= 0 {
			t.Errorf("a colour that the page's style does not have: %.60s",
				svg[at:])
		}
	}
	checkOffline(t, page)
	checkData(t, page, r)
}

// checkOffline finds what a browser would load, or run.
func checkOffline(t *testing.T, page string) {
	t.Helper()
	page = regexp.MustCompile(`xmlns(:xlink)?="[^"]*"`).ReplaceAllString(page, "")
	for _, bad := range []string{`https?:`, `//[a-z]`, `@import`, `url\(`, `\bsrc=`, `\bhref=`,
		`<link`, `<script>`, `<script type="text`, `<iframe`, `\son[a-z]+=`, `ZgotmplZ`} {
		if at := regexp.MustCompile(bad).FindString(page); at != "" {
			t.Errorf("the page has %q", at)
		}
	}
}

// checkData reads the JSON in the page.
func checkData(t *testing.T, page string, r Report) {
	t.Helper()
	data := regexp.MustCompile(`(?s)<script type="application/json" id="data">(.*)</script>`).
		FindStringSubmatch(page)
	if data == nil {
		t.Fatal("no data in the page")
	}
	want, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got, wanted any
	if err := errors.Join(json.Unmarshal([]byte(data[1]), &got),
		json.Unmarshal(want, &wanted)); err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(wanted)
	if !bytes.Equal(a, b) {
		t.Error("the data of the page is not the report's")
	}
}

func TestHTMLOfHostileNames(t *testing.T) {
	const evil = `</script><img/onerror=alert(1)>&"'` + "`{{.}}"
	r := repeated()
	r.Title = evil
	r.Facts = []Fact{{Name: evil, Value: evil}}
	for i := range r.Methods {
		p := *r.Methods[i].Pace
		p.Units = evil
		r.Methods[i].Pace = &p
	}
	r.Methods = append(r.Methods, NewMethod(evil, wss.Counts{}, 0, 20*sec, nil))
	page := pageOf(t, r)
	if strings.Contains(page, "<img") || strings.Count(page, "</script>") != 1 {
		t.Error("a name became part of the page")
	}
	checkData(t, page, r)
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1) {
		if texts := checkSVG(t, []byte(svg)); !strings.Contains(texts, evil) {
			t.Errorf("a figure lost the name: %.300s", texts)
		}
	}
}

func TestHTMLOfLittle(t *testing.T) {
	for _, r := range []Report{
		{},
		{Methods: []Method{{}}},
		{Methods: []Method{NewMethod("lazy", wss.Counts{}, 0, 0, nil)}},
		{Methods: []Method{{Name: "trace", End: sec, Pace: &Pace{}}}},
		{Methods: []Method{{Name: "eager", End: sec, Pace: &Pace{Slice: 1, Ran: sec}}}},
	} {
		page := pageOf(t, r)
		checkOffline(t, page)
		checkData(t, page, r)
		for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1) {
			if checkSVG(t, []byte(svg)); strings.Contains(svg, "NaN") {
				t.Error("a figure draws what is not a number")
			}
		}
	}
	if err := (Report{}).WriteHTML(failing{}); err == nil {
		t.Error("no error of the writer")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
