package s3fake

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// serveBucket answers listings. mu must be held.
func (s *Service) serveBucket(w http.ResponseWriter, r *http.Request, bucket string) error {
	q := r.URL.Query()
	switch {
	case r.Method != http.MethodGet:
		return unknown
	case q.Has("uploads"):
		return answer(w, s.listUploads(bucket, q.Get("prefix")))
	case q.Get("list-type") == "2":
		return answer(w, s.list(bucket, q))
	}
	return unknown
}

// pageKeys is how many keys a listing returns at once; few, so that tests see pages.
const pageKeys = 7

type listing struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Name, Prefix          string
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
	EncodingType          string
	Contents              []content
}

type content struct {
	Key, ETag    string
	Size         int
	LastModified string
}

const timeFormat = "2006-01-02T15:04:05.000Z"

func (s *Service) list(bucket string, q url.Values) listing {
	out := listing{Name: bucket, Prefix: q.Get("prefix"), EncodingType: "url"}
	after := max(q.Get("continuation-token"), q.Get("start-after"))
	var keys []string
	for path := range s.objects {
		key, ok := strings.CutPrefix(path, bucket+"/")
		if ok && strings.HasPrefix(key, out.Prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if len(keys) > pageKeys {
		keys = keys[:pageKeys]
		out.IsTruncated, out.NextContinuationToken = true, keys[pageKeys-1]
	}
	for _, key := range keys {
		o := s.objects[bucket+"/"+key]
		out.Contents = append(out.Contents, content{Key: url.QueryEscape(key), ETag: `"` + o.etag + `"`,
			Size: len(o.data), LastModified: o.modified.UTC().Format(timeFormat)})
	}
	return out
}

type uploadListing struct {
	XMLName xml.Name `xml:"ListMultipartUploadsResult"`
	Bucket  string
	Upload  []uploadLine
}

type uploadLine struct{ Key, UploadId, Initiated string }

func (s *Service) listUploads(bucket, prefix string) uploadListing {
	out := uploadListing{Bucket: bucket}
	for id, u := range s.uploads {
		if key, ok := strings.CutPrefix(u.path, bucket+"/"); ok && strings.HasPrefix(key, prefix) {
			out.Upload = append(out.Upload, uploadLine{key, id, u.begun.UTC().Format(timeFormat)})
		}
	}
	return out
}

type begunUpload struct {
	XMLName               xml.Name `xml:"InitiateMultipartUploadResult"`
	Bucket, Key, UploadId string
}

func (s *Service) begin(w http.ResponseWriter, r *http.Request, bucket, key string) error {
	s.seq++
	id := fmt.Sprintf("upload-%d", s.seq)
	s.uploads[id] = &upload{path: bucket + "/" + key, meta: metaOf(r.Header), begun: time.Now(),
		parts: map[int][]byte{}}
	return answer(w, begunUpload{Bucket: bucket, Key: key, UploadId: id})
}

func (s *Service) part(w http.ResponseWriter, id, number string, body []byte) error {
	u := s.uploads[id]
	n, err := strconv.Atoi(number)
	if u == nil || err != nil {
		return noSuchUpload
	}
	u.parts[n] = body
	w.Header().Set("ETag", `"`+md5Of(body)+`"`)
	return nil
}

type completion struct {
	Part []struct {
		PartNumber int
		ETag       string
	}
}

type completed struct {
	XMLName           xml.Name `xml:"CompleteMultipartUploadResult"`
	Bucket, Key, ETag string
}

// smallestPart is the least size of all parts but the last, here as there.
const smallestPart = 5 << 20

func (s *Service) complete(w http.ResponseWriter, r *http.Request, path, id string, body []byte) error {
	u := s.uploads[id]
	if u == nil || u.path != path {
		return noSuchUpload
	}
	var c completion
	if err := xml.Unmarshal(body, &c); err != nil {
		return unknown
	}
	var data []byte
	for i, p := range c.Part {
		part, there := u.parts[p.PartNumber]
		if !there || p.PartNumber != i+1 || strings.Trim(p.ETag, `"`) != md5Of(part) {
			return invalidPart
		}
		if i < len(c.Part)-1 && len(part) < smallestPart {
			return tooSmall
		}
		data = append(data, part...)
	}
	etag := fmt.Sprintf("%s-%d", md5Of(data), len(c.Part))
	if err := s.put(w, r, path, data, etag, u.meta); err != nil {
		return err
	}
	delete(s.uploads, id)
	bucket, key, _ := strings.Cut(path, "/")
	return answer(w, completed{Bucket: bucket, Key: key, ETag: etag})
}

func answer(w http.ResponseWriter, v any) error {
	text, err := xml.Marshal(v)
	if err == nil {
		w.Header().Set("Content-Type", "application/xml")
		_, err = w.Write(text)
	}
	return err
}
