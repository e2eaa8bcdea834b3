package s3fake

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Service is an http.Handler. It has every bucket that is asked for, but "missing".
type Service struct {
	// Unconditional makes it accept conditions of uploads, and not apply them, as some services do.
	Unconditional bool

	mu      sync.Mutex
	objects map[string]object // by bucket/key; guarded by mu, as all below
	uploads map[string]*upload
	seq     int
}

// object is a stored object. Its bytes are never changed.
type object struct {
	data     []byte
	etag     string
	meta     http.Header
	modified time.Time
}

// upload is a multipart upload that is not completed.
type upload struct {
	path  string
	meta  http.Header
	begun time.Time
	parts map[int][]byte
}

// NewService makes an empty service.
func NewService() *Service {
	return &Service{objects: map[string]object{}, uploads: map[string]*upload{}}
}

// Keys lists the objects of a bucket.
func (s *Service) Keys(bucket string) (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path := range s.objects {
		if key, ok := strings.CutPrefix(path, bucket+"/"); ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Uploads is how many multipart uploads are neither completed nor aborted.
func (s *Service) Uploads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads)
}

// Age makes all uploads older.
func (s *Service) Age(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.uploads {
		u.begun = u.begun.Add(-d)
	}
}

// fault is an error as S3 answers it.
type fault struct {
	XMLName xml.Name `xml:"Error"`
	Status  int      `xml:"-"`
	Code    string
	Message string
}

func (f *fault) Error() string { return f.Code }

var (
	noSuchKey    = &fault{Status: 404, Code: "NoSuchKey"}
	noSuchBucket = &fault{Status: 404, Code: "NoSuchBucket"}
	noSuchUpload = &fault{Status: 404, Code: "NoSuchUpload"}
	invalidRange = &fault{Status: 416, Code: "InvalidRange"}
	precondition = &fault{Status: 412, Code: "PreconditionFailed"}
	badDigest    = &fault{Status: 400, Code: "XAmzContentSHA256Mismatch"}
	invalidPart  = &fault{Status: 400, Code: "InvalidPart"}
	tooSmall     = &fault{Status: 400, Code: "EntityTooSmall"}
	unknown      = &fault{Status: 501, Code: "NotImplemented"}
)

func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}
	if err := s.serve(w, r, body); err != nil {
		answerError(w, r, err)
	}
}

func answerError(w http.ResponseWriter, r *http.Request, err error) {
	var f *fault
	if !errors.As(err, &f) {
		f = &fault{Status: 500, Code: "InternalError", Message: err.Error()}
	}
	text, _ := xml.Marshal(f)
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(f.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(text)
	}
}

func (s *Service) serve(w http.ResponseWriter, r *http.Request, body []byte) error {
	path := strings.TrimPrefix(r.URL.Path, "/")
	bucket, key, _ := strings.Cut(path, "/")
	q := r.URL.Query()
	if bucket == "missing" {
		return noSuchBucket
	}
	if sum := r.Header.Get("X-Amz-Content-Sha256"); len(sum) == 2*sha256.Size {
		if got := sha256.Sum256(body); hex.EncodeToString(got[:]) != sum {
			return badDigest
		}
	} else if strings.HasPrefix(sum, "STREAMING") {
		return unknown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if key == "" {
		return s.serveBucket(w, r, bucket)
	}
	switch id := q.Get("uploadId"); {
	case r.Method == http.MethodPost && q.Has("uploads"):
		return s.begin(w, r, bucket, key)
	case r.Method == http.MethodPut && id != "":
		return s.part(w, id, q.Get("partNumber"), body)
	case r.Method == http.MethodPost && id != "":
		return s.complete(w, r, path, id, body)
	case r.Method == http.MethodDelete && id != "":
		if s.uploads[id] == nil {
			return noSuchUpload
		}
		delete(s.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPut:
		return s.put(w, r, path, body, md5Of(body), metaOf(r.Header))
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return s.get(w, r, path)
	case r.Method == http.MethodDelete:
		delete(s.objects, path)
		w.WriteHeader(http.StatusNoContent)
	default:
		return unknown
	}
	return nil
}

func md5Of(b []byte) string {
	sum := md5.Sum(b)
	return hex.EncodeToString(sum[:])
}

func metaOf(h http.Header) http.Header {
	meta := http.Header{}
	for name, v := range h {
		if strings.HasPrefix(name, "X-Amz-Meta-") {
			meta[name] = v
		}
	}
	return meta
}

// put stores an object, if its condition holds. mu must be held.
func (s *Service) put(w http.ResponseWriter, r *http.Request, path string, data []byte, etag string,
	meta http.Header) error {
	if _, there := s.objects[path]; there && r.Header.Get("If-None-Match") == "*" && !s.Unconditional {
		return precondition
	}
	s.objects[path] = object{data: data, etag: etag, meta: meta, modified: time.Now()}
	w.Header().Set("ETag", `"`+etag+`"`)
	return nil
}

// get answers GET and HEAD. mu must be held.
func (s *Service) get(w http.ResponseWriter, r *http.Request, path string) error {
	o, there := s.objects[path]
	if !there {
		return noSuchKey
	}
	if want := r.Header.Get("If-Match"); want != "" && want != `"`+o.etag+`"` {
		return precondition
	}
	data, status := o.data, http.StatusOK
	if text := r.Header.Get("Range"); text != "" {
		off, end, err := parseRange(text, len(o.data))
		if err != nil {
			return err
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, end-1, len(o.data)))
		data, status = o.data[off:end], http.StatusPartialContent
	}
	maps.Copy(w.Header(), o.meta)
	w.Header().Set("ETag", `"`+o.etag+`"`)
	w.Header().Set("Last-Modified", o.modified.UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		_, _ = w.Write(data)
	}
	return nil
}

// parseRange reads bytes=A-B and bytes=-N.
func parseRange(text string, size int) (off, end int, err error) {
	from, to, _ := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
	last, err := strconv.Atoi(to)
	if err != nil {
		return 0, 0, unknown
	}
	if from == "" {
		off, last = max(size-last, 0), size-1
	} else if off, err = strconv.Atoi(from); err != nil {
		return 0, 0, unknown
	}
	if end = min(last+1, size); off >= end {
		return 0, 0, invalidRange
	}
	return off, end, nil
}
