// Package api is the interface to control a running machine: HTTP with JSON over a unix socket, one
// request for one action, as in Firecracker. The commands `thaw vm pause`, `resume`, `checkpoint`,
// `status`, `metrics` and `stop` are its clients; curl works, too:
//
//	curl --unix-socket SOCK http://vm/status
//	curl --unix-socket SOCK -X PUT http://vm/pause
//	curl --unix-socket SOCK -X PUT -d '{"dir":"/backup/one","stop":true}' http://vm/checkpoint
//
// # Requests
//
//	GET      /            -> Version
//	GET      /version     -> Version   who answers; "api" is the number of this interface
//	GET      /status      -> Status    what the machine is doing
//	GET      /metrics     -> Metrics   exits, pauses, checkpoints, stalls, pages
//	PUT|POST /pause       -> Status    the vCPUs are paused; no error if they are already
//	PUT|POST /resume      -> Status    they continue, or start if the machine began paused
//	PUT|POST /checkpoint  CheckpointRequest -> CheckpointReply   a running machine goes on afterwards
//	PUT|POST /stop        -> Status    ends the machine
//
// With scan_seconds or trace_seconds a checkpoint also takes this time: it estimates the machine's
// working set before or afterwards, and answers when that is written.
//
// A checkpoint is completed even if the client disconnects. Requests that change something are served
// one after another; /status and /metrics are answered at any time.
//
// # Failures
//
// An HTTP status other than 200, with {"fault_message": "..."}:
//
//	400  the request makes no sense: no JSON, an unknown field, a path that is not absolute
//	404  there is no such path
//	405  the path does not take the method; the header Allow says which it takes
//	409  the machine's state does not allow it: it has ended; the directory of a checkpoint exists
//	     already; a differential checkpoint has no parent, or lost it; what is to be scanned or
//	     traced does not run
//	500  it was tried and went wrong
//	507  the disk of a checkpoint is full; the machine goes on, and nothing is left of it
//
// Fields of the replies are only ever added.
//
// The socket has mode 0600: only the user of the machine's process can use it, because it can write the
// machine's memory to disk.
package api
