package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// callLimit bounds one call to a witness.
const callLimit = 5 * time.Second

// Peer is a witness that somebody else runs.
type Peer struct {
	Name string        // in the policy
	URL  string        // of add-checkpoint
	Key  note.Verifier // of its cosignatures
}

// errContradicted says that what the witness remembers is not in the log.
var errContradicted = errors.New("the witness remembers another history")

// ask has a checkpoint cosigned and returns the signature's lines: only those of the
// witness's own key, over this very text. Errors are conflict, errContradicted, or
// why there is no answer.
func (p Peer) ask(ctx context.Context, client *http.Client, r request) (note.Signature, error) {
	var none note.Signature
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	call, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(r.encode()))
	if err != nil {
		return none, err
	}
	call.Header.Set("Content-Type", "text/plain; charset=utf-8")
	answer, err := client.Do(call)
	if err != nil {
		return none, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, MaxBody+1))
	switch {
	case err != nil:
		return none, err
	case len(body) > MaxBody:
		return none, fmt.Errorf("an answer of more than %d bytes", MaxBody)
	case answer.StatusCode == http.StatusConflict:
		size, err := strconv.ParseInt(strings.TrimSuffix(string(body), "\n"), 10, 64)
		if err != nil || size < 0 {
			return none, errors.New("a conflict without a size")
		}
		return none, conflict{size}
	case answer.StatusCode == http.StatusUnprocessableEntity:
		return none, errContradicted
	case answer.StatusCode != http.StatusOK:
		return none, fmt.Errorf("it answered %s", answer.Status)
	}
	text, _, ok := bytes.Cut(r.checkpoint, []byte("\n\n"))
	if !ok {
		return none, errors.New("the checkpoint is no note")
	}
	signed := append(append(bytes.Clone(text), "\n\n"...), body...)
	n, err := note.Open(signed, note.VerifierList(p.Key))
	if err != nil || len(n.Sigs) != 1 {
		return none, errors.New("its answer is not its cosignature of this checkpoint")
	}
	return n.Sigs[0], nil
}
