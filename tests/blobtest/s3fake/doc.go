// Package s3fake is an S3 service in the process of a test, and a proxy that makes any S3 service fail.
//
// [Service] keeps objects in memory. It does what package s3 needs, as AWS documents it, and refuses what it
// does not know. It looks at no signature. [Proxy] stands before it, or before a service in another process
// ([Forward]): it counts requests, and a [Plan] says which of them are delayed, cut, refused, answered
// wrongly, or never. [Start] puts both together.
package s3fake
