// Package witness is the log's memory outside of its own house (c2sp.org/tlog-witness,
// c2sp.org/tlog-cosignature). A witness remembers the newest head of a log that it has
// seen, and cosigns another one only if that one continues it. So whoever wants to
// rewrite the log, or to show different people different logs, needs the witnesses too.
//
// Both sides are here: a witness, for `sallyportd witness` in somebody else's account;
// and the asker, by which a broker has its heads cosigned. Nobody waits for witnesses:
// they are asked beside the log, and what they say is shown, alarmed about and put into
// evidence packs. Only if it is told to does a broker issue nothing while they lag.
package witness

import "golang.org/x/mod/sumdb/tlog"

// Limits of a call.
const (
	// MaxBody is the most bytes of a request, and of an answer.
	MaxBody = 64 << 10
	// maxProof is the most hashes that a consistency proof has: of trees below 2^63.
	maxProof = 63

	addCheckpoint = "/add-checkpoint"
	// sizeType is the content type of the size in an answer 409.
	sizeType = "text/x.tlog.size"
)

// request is the body of add-checkpoint.
type request struct {
	old        int64
	proof      tlog.TreeProof
	checkpoint []byte // signed note
}
