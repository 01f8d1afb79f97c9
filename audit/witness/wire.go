package witness

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
)

var errForm = errors.New("not a call of add-checkpoint")

// encode is the body's only form.
func (r request) encode() []byte {
	body := fmt.Appendf(nil, "old %d\n", r.old)
	for _, h := range r.proof {
		body = append(base64.StdEncoding.AppendEncode(body, h[:]), '\n')
	}
	body = append(body, '\n')
	return append(body, r.checkpoint...)
}

// parseRequest reads a body. It takes the one form only that encode gives.
func parseRequest(body []byte) (request, error) {
	var r request
	head, signed, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok || len(signed) == 0 {
		return r, errForm
	}
	lines := bytes.Split(head, []byte("\n"))
	size, ok := bytes.CutPrefix(lines[0], []byte("old "))
	old, err := strconv.ParseInt(string(size), 10, 64)
	if !ok || err != nil || old < 0 || old > checkpoint.MaxSize || len(lines)-1 > maxProof {
		return r, errForm
	}
	r.old, r.checkpoint = old, signed
	for _, line := range lines[1:] {
		hash, err := base64.StdEncoding.Strict().DecodeString(string(line))
		if err != nil || len(hash) != tlog.HashSize {
			return r, errForm
		}
		r.proof = append(r.proof, tlog.Hash(hash))
	}
	if !bytes.Equal(r.encode(), body) {
		return r, errForm
	}
	return r, nil
}
