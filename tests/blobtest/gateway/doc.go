// Package gateway starts a real S3 service for tests: versitygw, over a directory. Its program is a module of
// its own (versitygw), which is built once for each run of a test binary; go.mod of thaw knows nothing of it.
package gateway
