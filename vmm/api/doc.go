// Package api is how a running machine is driven: HTTP with JSON over a unix socket, one request
// for one action, in the manner of Firecracker. The commands `thaw vm pause`, `resume`,
// `checkpoint`, `status` and `stop` are its client; curl does as well:
//
//	curl --unix-socket SOCK http://vm/status
//	curl --unix-socket SOCK -X POST http://vm/pause
//	curl --unix-socket SOCK -X POST -d '{"dir":"/backup/one","stop":true}' http://vm/checkpoint
//
//	GET  /status      -> Status
//	POST /pause       -> Status   the vCPUs stand still; no error if they do already
//	POST /resume      -> Status
//	POST /checkpoint  CheckpointRequest -> CheckpointReply   a running machine goes on afterwards
//	POST /stop        -> Status   ends the machine
//
// A failure is an HTTP status other than 200 with {"error": "..."}: 400 for a request that makes no
// sense, 409 for one that the machine's state does not allow, 500 for what went wrong.
package api
