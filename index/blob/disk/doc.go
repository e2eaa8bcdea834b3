// Package disk simulates a storage device that this host does not have: every read takes as long as
// it would take there. So restores from a spinning disk, over NFS or from object storage can be
// compared with those from the host's own disk, and measurements on a paper's device with its figures.
//
// # The model
//
// A device is a [Spec] of five numbers, and one rule for all kinds of device:
//
//   - Parallel requests are served at once; further ones wait, in the order of arrival.
//   - A request first takes Latency, which requests at the same time have side by side, and Seek
//     more if it does not begin at the byte behind the request before it.
//   - Then its bytes are transferred, at Bandwidth bytes a second. All requests share the one link,
//     and have it one after another, in the order of arrival.
//   - With nothing else to do the device reads on behind the last request, for ReadOn: so the bytes
//     of a request that follows may be there in part when it comes.
//
// [Model] is this rule and nothing else: it says of a request when it begins and when it ends, from
// the time of its arrival and from what came before. It has no clock, no lock and no bytes.
//
//	        Seek   Latency  Bandwidth  Parallel
//	hdd     10 ms  0        100 MB/s   1         one head: it does one thing at a time
//	nfs     0      0.5 ms   110 MB/s   64        a gigabit link to a server that has all in memory
//	s3      0      20 ms    100 MB/s   16        requests on 16 connections; any of them can have the
//	                                             whole link while it is alone
//
// The head of hdd serves requests in the order of arrival and does not sort them (no elevator):
// with one or two requests outstanding, which is what faulting processors and an orderly prefetch
// have, there is nothing to sort. Reading from several places at once is as slow as on a
// real disk with a short queue. A short seek costs as much as a long one. The drive reads on for 5
// ms, half a megabyte, as drives do: so a sequential reader gets the whole bandwidth, though
// on a busy host its next request may be late. It has no other cache.
//
// # Time
//
// [Disk] follows the model in real time. A read asks the model at its arrival, reads the bytes from
// where they really are, and returns when the simulated device would have delivered them. Waiting
// for that moment is the delay of the device and no synchronisation. The moments are absolute, on
// one clock, so that the errors of waits side by side do not add up, and they are right on average
// (see systemClock): BenchmarkDisk shows by how much. If the host is slower than the model, the
// read ends when the host has read it, and Stats.Late says how often that was so.
//
// # What is charged
//
// [Store] puts a Disk under the packs and roots of a store: every read of a blob is charged,
// even if it is in the host's page cache, and so every restore is a cold one. That includes
// what opening an image reads (directories of packs, page map, root). The index in Badger, which a
// mount reads when it starts, is not charged, and neither are writes.
//
// Blobs lie on the device one after another: those that are there when the Store is made in the
// order of their names, which for packs is the order in which they were made, and new ones behind
// them. A raw file, for a comparison, is read by way of a Disk, too, its data being all that lies
// on it.
package disk
