package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/thawfs/thaw/index/blob"
)

// ErrNoCredentials is returned by Open if nothing says who is asking, and Config.Anonymous is not set.
var ErrNoCredentials = errors.New("no credentials for the object store")

// Config says where blobs are, and how to get there.
type Config struct {
	Bucket string
	// Prefix is put before the names of blobs, with a slash between them. It may be empty.
	Prefix string
	// Endpoint is the URL of the service: http or https, and a host. Empty: AWS.
	Endpoint string
	// Region is that of the bucket. Empty: AWS is asked for it; other services have us-east-1.
	Region string
	// CA is a file with certificates, in PEM, that are trusted besides those of the host.
	CA string
	// Anonymous allows requests that nobody signs. Without it, missing credentials are an error.
	Anonymous bool
	// AccessKey and SecretKey, and SessionToken if there is one, are who is asking. If they are empty, the
	// usual places are looked at, see Open.
	AccessKey, SecretKey, SessionToken string
	// Encryption is what the service does with what it stores: "" as the bucket is configured, "s3" with a
	// key of the service, "kms" or "kms:KEY" with one of its key management, "customer:FILE" with the key
	// of 32 bytes in the file, as they are or in base64.
	Encryption string
	// Unconditional is for services that do not keep conditions (Probe tells).
	Unconditional bool
	// Limits that are zero get their defaults.
	Limits Limits
}

// Limits of time and size. The defaults are for a service in the same region, 10 to 100 ms away.
type Limits struct {
	// Read is how long a ReadAt may take, whatever fails meanwhile. A machine waits for it.
	Read time.Duration
	// Answer is how long one request of a read may take until its answer begins, and then until each next
	// megabyte of it is there.
	Answer time.Duration
	// Request is how long anything else may take, its repetitions included; an upload as long for a part.
	Request time.Duration
	// Part is the size of a part of an upload, in bytes. Services demand 5 MiB at least, and parts of one
	// size.
	Part int
	// Parallel is how many parts of one blob are sent at once.
	Parallel int
	// Tail is how much of its end is read when an object is opened, in bytes.
	Tail int
	// Latency is what readers are told of a request (blob.Medium).
	Latency time.Duration
	// Connections is how many requests are served better at once than one after another (blob.Medium), and
	// how many idle connections are kept.
	Connections int
}

// defaultTo makes a zero value the default.
func defaultTo[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func (l Limits) withDefaults() Limits {
	defaultTo(&l.Read, 15*time.Second)
	defaultTo(&l.Answer, 4*time.Second)
	defaultTo(&l.Request, 2*time.Minute)
	defaultTo(&l.Part, 8<<20)
	defaultTo(&l.Parallel, 4)
	defaultTo(&l.Tail, 1<<20)
	defaultTo(&l.Latency, 20*time.Millisecond)
	defaultTo(&l.Connections, 16)
	return l
}

// endpoint returns host and scheme of the service.
func (c Config) endpoint() (host string, secure bool, err error) {
	if c.Endpoint == "" {
		return "s3.amazonaws.com", true, nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil ||
		u.Scheme != "http" && u.Scheme != "https" {
		return "", false, fmt.Errorf("endpoint %q: must be http://HOST or https://HOST, with a port if it has one",
			c.Endpoint)
	}
	return u.Host, u.Scheme == "https", nil
}

// check says what is wrong with names.
func (c Config) check() error {
	if c.Bucket == "" {
		return errors.New("a bucket is needed")
	}
	if c.Prefix != "" {
		if err := blob.CheckName(c.Prefix); err != nil {
			return fmt.Errorf("prefix: %w", err)
		}
	}
	return nil
}

// encryption returns what requests say of it; nil if nothing.
func (c Config) encryption() (encrypt.ServerSide, error) {
	kind, arg, _ := strings.Cut(c.Encryption, ":")
	switch {
	case c.Encryption == "":
		return nil, nil
	case c.Encryption == "s3":
		return encrypt.NewSSE(), nil
	case kind == "kms":
		return encrypt.NewSSEKMS(arg, nil)
	case kind == "customer" && arg != "":
		key, err := os.ReadFile(arg)
		if err != nil {
			return nil, fmt.Errorf("key of the encryption: %w", err)
		}
		if len(key) != 32 {
			key, err = base64.StdEncoding.DecodeString(strings.TrimSpace(string(key)))
		}
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("key of the encryption: %s: must have 32 bytes, or them in base64", arg)
		}
		return encrypt.NewSSEC(key)
	}
	return nil, fmt.Errorf("encryption %q: must be s3, kms, kms:KEY or customer:FILE", c.Encryption)
}

// transport makes connections: as many stay open as requests come at once, because the first one on a
// connection is slow.
func (c Config) transport() (*http.Transport, error) {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		MaxIdleConns:          4 * c.Limits.Connections,
		MaxIdleConnsPerHost:   4 * c.Limits.Connections,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   c.Limits.Answer,
		ExpectContinueTimeout: time.Second,
		// A range of a compressed answer would be one of other bytes.
		DisableCompression: true,
	}
	if c.CA == "" {
		return t, nil
	}
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("certificates of the service: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificates of the service: %s has none in PEM", c.CA)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}

// metadataTimeout bounds the question to a host for its credentials, if it is none of a cloud.
const metadataTimeout = 3 * time.Second

// identity returns who is asking.
func (c Config) identity(ctx context.Context) (*credentials.Credentials, error) {
	if c.AccessKey != "" || c.SecretKey != "" {
		return credentials.NewStaticV4(c.AccessKey, c.SecretKey, c.SessionToken), nil
	}
	if c.Anonymous {
		return credentials.NewStatic("", "", "", credentials.SignatureAnonymous), nil
	}
	client := &http.Client{Timeout: metadataTimeout}
	chain := []credentials.Provider{&credentials.EnvAWS{}, &credentials.EnvMinio{},
		&credentials.FileAWSCredentials{}, &credentials.FileMinioClient{}}
	if cloud() {
		chain = append(chain, &credentials.IAM{Client: client})
	}
	who := credentials.NewChainCredentials(chain)
	v, err := who.GetWithContext(&credentials.CredContext{Client: client, Context: ctx})
	if err == nil && (v.AccessKeyID == "" || v.SecretAccessKey == "") {
		err = fmt.Errorf("%w: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or write them "+
			"to ~/.aws/credentials, or give this host a role; for a public bucket ask for anonymous access",
			ErrNoCredentials)
	}
	return who, err
}

// cloud says whether the cloud that this host is in may be asked for its role.
func cloud() bool {
	for _, v := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		if os.Getenv(v) != "" {
			return true
		}
	}
	return os.Getenv("AWS_EC2_METADATA_DISABLED") != "true"
}

// Location is the configuration as one string, without credentials and limits: s3://BUCKET/PREFIX.
func (c Config) Location() string {
	return strings.TrimSuffix("s3://"+c.Bucket+"/"+c.Prefix, "/")
}

// client makes what sends requests. They are sent once: repeating them is up to this package.
func (c Config) client(ctx context.Context, transport http.RoundTripper) (*minio.Core, error) {
	host, secure, err := c.endpoint()
	if err != nil {
		return nil, err
	}
	who, err := c.identity(ctx)
	if err != nil {
		return nil, err
	}
	region := c.Region
	if region == "" && c.Endpoint != "" {
		region = "us-east-1"
	}
	return minio.NewCore(host, &minio.Options{
		Creds: who, Secure: secure, Region: region, Transport: transport, MaxRetries: 1,
	})
}
