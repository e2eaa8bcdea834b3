package s3

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
)

// scheme begins the location of a store that this package opens.
const scheme = "s3://"

// IsURL says whether a location is meant for this package.
func IsURL(location string) bool { return strings.HasPrefix(location, scheme) }

// options are what may follow the location. No secrets: those would be seen in lists of processes.
var options = []string{"endpoint", "region", "ca", "encryption", "anonymous"}

// ParseURL reads s3://BUCKET/PREFIX?OPTION=VALUE&OPTION=VALUE. Options are endpoint, region, ca,
// encryption and anonymous=yes: see Config. Where one is missing, getenv is asked for AWS_ENDPOINT_URL_S3 or
// AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION, and AWS_CA_BUNDLE; it is os.Getenv but in tests.
func ParseURL(location string, getenv func(string) string) (Config, error) {
	c, err := parseURL(location, getenv)
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", location, err)
	}
	return c, nil
}

func parseURL(location string, getenv func(string) string) (c Config, err error) {
	if getenv == nil {
		getenv = os.Getenv
	}
	rest, ok := strings.CutPrefix(location, scheme)
	if !ok {
		return c, fmt.Errorf("must begin with %s", scheme)
	}
	path, query, _ := strings.Cut(rest, "?")
	c.Bucket, c.Prefix, _ = strings.Cut(path, "/")
	c.Prefix = strings.Trim(c.Prefix, "/")
	values, err := url.ParseQuery(query)
	if err != nil {
		return c, err
	}
	option := func(name string, variables ...string) string {
		if values.Has(name) {
			return values.Get(name)
		}
		i := slices.IndexFunc(variables, func(v string) bool { return getenv(v) != "" })
		if i < 0 {
			return ""
		}
		return getenv(variables[i])
	}
	for name := range values {
		if !slices.Contains(options, name) {
			return c, fmt.Errorf("unknown option %q: there are %s", name, strings.Join(options, ", "))
		}
	}
	c.Endpoint = option("endpoint", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
	c.Region = option("region", "AWS_REGION", "AWS_DEFAULT_REGION")
	c.CA = option("ca", "AWS_CA_BUNDLE")
	c.Encryption = option("encryption")
	switch v := option("anonymous"); v {
	case "":
	case "yes":
		c.Anonymous = true
	default:
		return c, fmt.Errorf("option anonymous=%s: only yes can be said", v)
	}
	return c, nil
}
