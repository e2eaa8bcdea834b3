// Package pack is the file format of a store's content, its writer, its reader and its codecs.
//
// # What is in a pack
//
// A pack is one write-once file (a blob). It holds
//
//   - pages, as compressed units. A unit is the smallest thing that is decoded, one page as a rule;
//     a block is a run of units that lie together because their pages are wanted together, and is
//     read at once. The ordinal of a page in its pack is its slot; pack number and slot together
//     are a [Ref], which is what a page map holds. Cold pages may lie elsewhere, in a cluster: pages of
//     any blocks that are like one another, compressed together;
//   - records: opaque bytes with a kind, for what the store keeps beside pages;
//   - frames: the pages of a working set, with their gfns, about a megabyte at a time, for one
//     sequential read that is decoded in parallel;
//
// and at its end a directory of all that, the hashes of the pages, and a footer. So a pack is
// complete: any index over packs can be made again from them.
//
// A pack is written by one [Writer], from what any number of goroutines made with one [Encoder],
// and read by any number of goroutines with one [Reader]. Compaction ([Rewrite]) makes the next
// generation of a pack: the same number, the same slots, without the dead. It can also
// restore pages that are damaged or were dropped: their hashes identify them. And it can store
// pages by their [Tier]: hot ones as units that decode at once, cold ones in clusters.
//
// Slots are names, and where a page lies is another thing. Many pages are best read by [Spots], the order in
// which they lie: each cluster is then read and decoded once.
//
// The path of a page fault through this package is [Reader.ReadPage]: look the slot up in RAM, one
// ReadAt, one checksum, one decoding, of a unit or a cluster. It takes no lock that is held over I/O and
// allocates nothing.
//
// # Invariants
//
//   - Bytes are returned as they were written, or there is an error, a [CorruptError] if the stored
//     bytes are wrong. Everything stored is under a CRC-32C, mixed with what and where it is, so that right
//     bytes in a wrong place do not pass.
//   - Slots, record numbers and frame numbers never change, through all generations. Clusters and spots
//     are those of one generation.
//   - A clustered slot is in one cluster, at one index, and nothing of it is in its block.
//   - Nothing refers to dead slots and records. Reading them is an error.
//   - A read of many pages returns each page that it can read, and an error for each other one
//     ([BadSlots]). It overwrites its whole buffer.
//   - A page is copied into another pack only after it was compared with its hash.
//   - The Writer reads its directory back before it commits it.
//   - Numbers in a file never make it allocate too much: a directory takes memory in proportion to its
//     bytes, and blocks, clusters, records and frames have bounds.
//
// # The format, versions 1 and 2
//
// Version 2 is that of packs with clusters, or with units of codec 5; what is said of these is of version 2
// only. A pack with neither, all of whose generations had neither, has version 1, which is read by programs
// that know only that.
//
// All integers are little endian. uvarint is the variable-length integer of encoding/binary: seven
// bits a byte, least significant first. CRC is CRC-32C (Castagnoli). A file is
//
//	header      32 bytes
//	body        clusters; then units, records and frames, in the order in which they were appended
//	directory   as long as the footer says
//	hashes      16 bytes for each slot
//	footer      96 bytes
//
// Header. It repeats what the footer says, for a reader that has lost the end of the file:
//
//	0   8  "thawpack"
//	8   4  format version
//	12  4  generation
//	16  8  pack number, 1 to 2^40-1
//	24  4  zero
//	28  4  CRC of bytes 0 to 27
//
// Footer, the last 96 bytes of the file:
//
//	0   4  format version. In another version all that follows may mean something else
//	4   4  generation
//	8   8  pack number
//	16  8  size of the file, at most 2^32-1
//	24  4  slots, at most 2^24
//	28  4  blocks
//	32  4  records
//	36  4  frames
//	40  8  offset of the directory
//	48  4  its length
//	52  4  its CRC
//	56  8  offset of the hashes: the end of the directory
//	64  4  their length: 16 times the slots
//	68  4  their CRC
//	72  8  identity of the pack; 0: not known
//	80  4  clusters; zero in version 1
//	84  4  CRC of bytes 0 to 83
//	88  8  "thawfoot"
//
// The identity is a random number, which a pack gets with generation 0 and keeps in every later one. It
// tells a pack from every other pack that has its number: of another store, or of a copy of the store
// that has taken the same number since. Packs of older programs have none; these wrote zeros there.
//
// Each unit, record, frame and cluster in the body is its data and then four bytes of checksum; lengths in
// the directory include these four. The checksum is the sum, modulo 2^32, of the CRC of the data and of
// bits 32 to 63 of the product (number<<24 | ordinal) * salt. Here number is the pack's, ordinal is the
// slot of the unit's first page or the number of the record, frame or cluster, and salt is
// 0x9E3779B97F4A7C15 for a unit, 0xC2B2AE3D27D4EB4F for a record, 0x165667B19E3779F9 for a frame,
// 0x27D4EB2F165667C5 for a cluster. For a cluster there is another addend, because its number may be
// another cluster's in each generation: x, which begins as 2166136261 and for each of its slots, in their
// order, becomes (x xor slot) * 16777619 modulo 2^32.
//
// Directory. First the blocks, in the order of their slots, then the records, then the frames, then the
// clusters; it ends where they end. A block is
//
//	uvarint  bytes between the end of the block before (of the header, for the first) and this one
//	uvarint  number of units, at least 1
//	         for each unit:
//	uvarint    length<<1 | s
//	byte       if s is 1: codec in the low half, number of pages - 1 in the high half
//
// A unit with s = 0 is like the one before it (of any block). Its pages take the next slots; its
// data follows that of the unit before. Slots thus need not be written anywhere. A block has at most 1024
// pages. A record or frame is
//
//	uvarint  kind of the record; 0 for a frame
//	byte     codec
//	uvarint  size of the record in bytes, decoded, at most 2^26; number of pages of the frame, at most 4096
//	uvarint  length
//	uvarint  bytes between the end of the item before (of the header, for the first) and this one;
//	         records and frames are counted apart
//
// A cluster is
//
//	byte     codec: 1 or 4
//	uvarint  number of pages, 1 to 64
//	uvarint  length
//	uvarint  bytes between the end of the cluster before (of the header, for the first) and this one
//	         for each page, in the order of the slots:
//	uvarint    the first: d = its slot - the last slot of the cluster before (0, for the first cluster),
//	           as 2d, or as -2d-1 where d is negative
//	           each other: its slot - the slot before - 1
//
// Its data are the pages in this order, in its codec. Each slot in it is one of a unit of codec 6 in its
// block, and is in no other cluster; and each slot of such a unit is in a cluster.
//
// Codecs:
//
//	0  dead: dropped by a compaction. Length 0, no data, no checksum
//	1  raw: the bytes themselves
//	2  zstd block, in units only: the content of the only block of a zstd frame (RFC 8878). To get a
//	   frame that any zstd decoder takes, put ten bytes before it: 28 B5 2F FD, 60 (single segment,
//	   two bytes of content size), the decoded size - 256 in two bytes, and in three bytes
//	   data length<<3 | 5 (last block, compressed)
//	3  S2 block (github.com/klauspost/compress/s2), without a stream around it
//	4  zstd frame, complete; in records, frames and clusters
//	5  LZ4 block (github.com/lz4/lz4, doc/lz4_Block_format.md)
//	6  clustered, in units only: length 0, no data, no checksum; the pages lie in clusters
//
// A unit has 1 to 8 pages. A frame's data is
//
//	4        length of the list of gfns, in bytes
//	list     runs of consecutive gfns in ascending order, each as
//	uvarint    gap since the gfn after the last run's end (since 0, for the first)
//	uvarint    number of pages - 1
//	pages    one after another, in the frame's codec
//
// Hashes. The hash of the page in each slot, dead slots included: the first 16 bytes of SHA-256
// over the store's key (32 bytes), 32 zero bytes, and the page. An index that maps hashes to slots
// is made again from these, without decoding a page.
//
// A pack's blob is named packs/NUMBER.GENERATION.pack, the number with ten digits at least. Where
// there are several generations of one number the highest counts; the others are leftovers.
//
// # What was measured, and chosen
//
// BenchmarkCodec, BenchmarkBlock, BenchmarkFrame and BenchmarkHash give these figures for any image
// (go test -run - -bench Codec ./index/pack -image FILE). Here for image A, the 512 MiB of a Debian
// guest under QEMU after a workload over files (67,009 pages that are not zero, 48,204 different
// ones, 76.1 MB by zstd -3), on two cores of an AMD EPYC (Zen 5) which were not idle. Stored bytes
// include checksum, directory and hash, 22 to 23 bytes a page; the read is from the page cache:
//
//	                       B/page   encode      ReadPage, us
//	units                           MB/s/core   p50    p90    p99
//	zstd fastest   4K        1586     236       8.2   10.5   14.8
//	               8K        1537     283      11.2   14.4   18.2
//	               16K       1509     322      16.6   22.1   38.9
//	zstd default   4K        1544     189       8.3   10.7   13.0
//	               8K        1495     214      11.4   15.2   20.4
//	               16K       1466     251      16.9   23.4   27.7
//	               a         1537     188       8.4   11.0   15.1    <- default, when written again
//	               b         1525     175       9.1   11.6   18.0
//	zstd better    4K        1533     147       8.1   10.6   15.1
//	S2             4K        2080     993       3.3    4.3    5.7     <- fast, and what imports store
//	S2 better      4K        1996     576       3.5    4.4    5.4
//	               8K        1941     602       5.6    8.3   10.4
//	               a         1994     545       3.5    4.4    5.2
//
//	a: larger units where 2 pages compress to 1024 bytes, 4 to 512; b: 1536, 1024, 8 to 512
//
// Nearly half of the 8 us are the tables of the zstd block, a tenth is the read: that is why a unit
// of one page is not much cheaper than one of two, and why two that compress well are put together.
// Larger units would save 3 to 5 %, for 3 to 8 us on every fault. Ten bytes of frame header that
// say nothing new are not stored; literals are entropy-coded where there are no matches, too, which
// is worth 3 %; room for 16 bytes behind the output makes decoding a fifth faster.
//
// These were tried and not chosen: a zstd dictionary of entropy tables, or of content (0.6 to 2.6 %,
// a third slower: the assembly in the decoder is for frames without one); S2 for those pages where
// it takes little more (it does for a tenth of them); an LZ77 + Huffman format of our own with
// built-in tables (4 % smaller, no faster than zstd's assembly, and half as fast to encode).
//
// With 25 bytes a page for an index, image A takes 0.99 of zstd -3: small units cost as much as
// deduplication saves. With few duplicate pages that does not hold. Image B, a Debian
// initramfs just booted (37,149 not zero, 30,695 different, 43.7 MB by zstd -3), takes 1.16 with 4K
// units, and would take 1.10 with 16K: zstd over the whole image finds its matches in other pages.
//
// Blocks: reading one of 16 pages takes 110 to 170 us (default) or 36 us (fast) and 24 or 32 KB of
// the file, which is about as long as the disk takes to find it.
//
// Frames, 100 MiB of image A from the page cache; the disk gives 1400 MB/s of raw pages, and one
// core pushes 3000 MB/s into the page cache:
//
//	               B/page   encode      decode MB/s
//	                        MB/s/core   1 core  2 cores
//	S2      256K    2039      850        2199    3419
//	        1M      2021      652        1542      -
//	zstd    256K    1661      277        1479    3070
//	default 512K    1639      251        1694    2886
//	        1M      1626      264        1712    3380      <- default
//	        2M      1608      270        1773    3482
//
// A frame of 1 MiB is as much as is worth pushing at once. The figures are from before literals without
// matches were entropy-coded in frames, too, which saves 2 % (1591 B a page at 1 MiB) and costs 10 %
// of the speed.
//
// Two cores decode zstd twice as fast as the disk reads raw pages, but the same cores push these
// pages into the page cache, which takes them as long again. So a frame can be made quick
// (EncodedFrame.Quick): LZ4. In frames of 1 MiB of another Debian guest (66,466 pages not zero), one
// core of an Intel Xeon, buffers warm:
//
//	                     B/page   decode, ns a page   encode MB/s
//	zstd default         1614     2370                240
//	zstd, no entropy     1707     2940                -
//	S2                   2023     1910                570
//	S2 better            1906     2040                -
//	LZ4                  2064     1040                620      <- quick
//	LZ4 HC, level 9      1913     1030                3
//
// Pages that machines wait for most can be LZ4 HC (NewHotEncoder), each in a unit of its own. On 110 MiB of a
// Python process's memory and of files (image C), units of 4K, on a machine so busy that only the columns'
// ratios say something:
//
//	               B/page   encode MB/s   ReadPage p50, us
//	zstd default     1313        20             9.1
//	S2               1789       147             3.8
//	S2 better        1722        52             4.0
//	LZ4              1863        60             2.6
//	LZ4 HC, 1 to 9   1666        16             2.6    <- hot
//
// Of the 2.6 us the read is 1.1. LZ4 HC takes less space than S2 and encodes as slowly as zstd, so it is
// for what is written again, not for an import.
//
// Clusters: BenchmarkTier, for a guest of 512 MiB (48,015 different pages that are not zero, 76.2 MB by
// zstd -3: 1587 B a page) on a machine which was busy with other work, so MB/s are by processor time, and
// all of Rewrite; the read is of a random page, from the page cache:
//
//	                            B/page  rewrite    ReadPage, us
//	                                    MB/s/core  p50    p90
//	hot                         2001    160          4      5
//	warm                        1542    272         11     16
//	cold  16 pages  by place
//	                  default   1439     48         65    103
//	                  better    1424     38         61     91
//	                  best      1366     14         64     95
//	                by content
//	                  default   1334     45         59     95
//	                  better    1305     37         58     99
//	                  best      1249     13         56     85    <- TierCold
//	      32 pages  by content
//	                  better    1300     45         98    153
//	                  best      1236     15        108    201
//
// Once like pages are together, twice as many of them save hardly anything. Of 190,759 different pages of
// program files in any order (zstd -3: 1381 B a page, warm: 1748) a cluster of 16 by content takes 1367 B a
// page without directory and hashes by the better level, and 1312 by the best; by place it takes 1465 by the
// better one. A neighbour's place is worth 4 to 8 of the 32 features that a page has: less or more makes
// clusters 1 to 2 % larger. Reading all of an image in the order of spots takes half of the time from
// clusters that it takes from units. A collection, which makes new clusters of the pages that are left of
// others while nobody may write to the store, compresses them by the better level.
//
// Hashes: SHA-256 1700 MB/s, keyed BLAKE3 1560 MB/s.
package pack
