// Package s3 keeps blobs as objects of an S3-compatible service: AWS, Ceph, MinIO, R2, versitygw.
//
// # What it asks of the service
//
// A blob NAME is the object PREFIX/NAME of a bucket. [Store.Open] is one GET, of the end of the object,
// because the end of a pack says what is in it: no HEAD comes before it, and what was read is not asked for
// again. [Object.ReadAt] is one ranged GET. A HEAD is sent only by what writes or deletes, and a LIST only
// by [Store.List] and [Store.Sweep].
//
// A blob of one part is a PUT, a larger one a multipart upload, parts of which are sent while the next ones
// are made. Either becomes visible in one step, under the condition If-None-Match: * (the upload has it when
// it is completed, which is when services look at it). Services exist that accept the header and do not
// apply it, so [Store.Probe] tests it. Without conditions ([Config.Unconditional]) a name is looked up just
// before the blob is committed: that is right for one writer, and for many only if they choose different
// names.
//
// Each blob carries the random number of its upload. An answer that was lost is sent for again, and then
// "exists already" may mean the first attempt: the number tells.
//
// # Bytes
//
// What is sent carries its SHA-256, which services compare. What is received must be the range that was
// asked for, of an object with the ETag that Open has seen: a service that sends something else is asked
// again. That the bytes are those of the pack is checked above, by the checksums of its units. After an
// object was replaced or removed, reads of an open one fail with blob.ErrNotFound.
//
// # Time
//
// A machine waits for a read, so it has a deadline ([Limits.Read]), in which a request that failed is
// repeated, and continued where it ended. A request whose answer has not begun after the time that 95 of 100
// answers take is sent a second time, and whichever is there first counts (hedger): never more than one in
// twenty, and not at all while requests fail, since more requests are what a service in trouble needs least.
// Uploads have deadlines of their own, and wait longer between their attempts.
package s3
