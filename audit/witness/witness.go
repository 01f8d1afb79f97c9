package witness

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/audit/cosignature"
	"sallyport/internal/clock"
)

// Config is what a witness needs. All of it must be set.
type Config struct {
	// Key is the witness's private key in note format, of either Ed25519 kind; it signs
	// as cosignature/v1.
	Key string
	// Logs are the public keys of the logs that it watches, in note format.
	Logs []string
	// State is the file that it remembers heads in. Whoever can put back an older one can
	// make the witness cosign another history.
	State  string
	Clock  clock.Clock
	Logger *slog.Logger
}

// Witness is a C2SP witness. It is an http.Handler, and safe for concurrent use.
type Witness struct {
	signer note.Signer
	logs   map[string]note.Verifier
	logger *slog.Logger

	mu    sync.Mutex // one head at a time: what is compared is what is replaced
	state *state
}

// New opens the state. Close closes it.
func New(cfg Config) (*Witness, error) {
	if cfg.Logger == nil || cfg.Clock == nil || cfg.State == "" || len(cfg.Logs) == 0 {
		return nil, errors.New("a witness needs a state, a clock, a logger and at least one log")
	}
	signer, err := cosignature.NewSigner(cfg.Key, cfg.Clock.Now)
	if err != nil {
		return nil, fmt.Errorf("the witness's key: %w", err)
	}
	w := &Witness{signer: signer, logs: map[string]note.Verifier{}, logger: cfg.Logger}
	for _, key := range cfg.Logs {
		v, err := note.NewVerifier(key)
		if err != nil {
			return nil, fmt.Errorf("a log's key %q: %w", key, err)
		}
		if w.logs[v.Name()] != nil {
			return nil, fmt.Errorf("two keys for the log %s", v.Name())
		}
		w.logs[v.Name()] = v
	}
	if w.state, err = openState(cfg.State); err != nil {
		return nil, err
	}
	for origin, msg := range w.state.logs {
		if v := w.logs[origin]; v != nil {
			if _, err := checkpoint.Open(msg, v); err != nil {
				return nil, errors.Join(fmt.Errorf("the witness's state: the log %s: %w", origin, err), w.Close())
			}
		}
	}
	return w, nil
}

// Close lets another process have the state.
func (w *Witness) Close() error { return w.state.close() }

// What a witness answers, beside a cosignature.
var (
	errUnknownLog = errors.New("unknown log")
	errSignature  = errors.New("not signed by the log's key")
	errOldSize    = errors.New("the old size is larger than the checkpoint's")
	errProof      = errors.New("the checkpoint does not continue the last one")
)

// conflict says that the caller was wrong about the size that the witness has last
// cosigned; or, where that size is the checkpoint's, about its root.
type conflict struct{ size int64 }

func (c conflict) Error() string { return fmt.Sprintf("the last size is %d", c.size) }

// ServeHTTP implements POST …/add-checkpoint.
func (w *Witness) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, addCheckpoint) {
		http.NotFound(out, r)
		return
	}
	if r.Method != http.MethodPost {
		out.Header().Set("Allow", http.MethodPost)
		http.Error(out, "only POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(out, r.Body, MaxBody))
	if err != nil {
		http.Error(out, "too large, or cut off", http.StatusBadRequest)
		return
	}
	in, err := parseRequest(body)
	if err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	lines, err := w.add(in)
	var other conflict
	switch {
	case err == nil:
		out.Header().Set("Content-Type", "text/plain; charset=utf-8")
		out.Write(lines)
	case errors.As(err, &other):
		out.Header().Set("Content-Type", sizeType)
		out.WriteHeader(http.StatusConflict)
		fmt.Fprintf(out, "%d\n", other.size)
	case errors.Is(err, errUnknownLog):
		http.Error(out, err.Error(), http.StatusNotFound)
	case errors.Is(err, errSignature):
		http.Error(out, err.Error(), http.StatusForbidden)
	case errors.Is(err, errOldSize):
		http.Error(out, err.Error(), http.StatusBadRequest)
	case errors.Is(err, errProof):
		w.logger.Error("a log contradicts what it said before", "proof", err.Error(), "checkpoint", string(in.checkpoint))
		http.Error(out, err.Error(), http.StatusUnprocessableEntity)
	default:
		w.logger.Error("cosigning failed", "error", err)
		http.Error(out, "the witness cannot cosign now", http.StatusInternalServerError)
	}
}

// add cosigns a checkpoint, and returns the cosignature's lines, when the checkpoint
// is remembered for good. The rules, in the order of c2sp.org/tlog-witness:
//
//  1. the log is one that is watched, and its key signed the checkpoint;
//  2. the old size is not larger than the checkpoint's;
//  3. it is that of the last checkpoint that was cosigned, 0 if there is none;
//  4. of the same size, it is the same tree;
//  5. the proof leads from that one to this one.
func (w *Witness) add(in request) ([]byte, error) {
	origin, _, _ := strings.Cut(string(in.checkpoint), "\n")
	verifier := w.logs[origin]
	if verifier == nil {
		return nil, errUnknownLog
	}
	tree, err := checkpoint.Open(in.checkpoint, verifier)
	if err != nil {
		return nil, errSignature
	}
	if in.old > tree.N {
		return nil, errOldSize
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var last tlog.Tree
	if msg := w.state.logs[origin]; msg != nil {
		if last, err = checkpoint.Open(msg, verifier); err != nil {
			return nil, err
		}
	}
	switch {
	case in.old != last.N:
		return nil, conflict{last.N}
	case last.N == tree.N && last.N > 0 && last.Hash != tree.Hash:
		w.logger.Error("a log has two trees of one size", "log", origin, "size", tree.N)
		return nil, conflict{last.N}
	case last.N == 0 || last.N == tree.N:
		if len(in.proof) > 0 {
			return nil, errProof
		}
	default:
		if err := tlog.CheckTree(in.proof, tree.N, tree.Hash, last.N, last.Hash); err != nil {
			return nil, errProof
		}
	}
	n, err := note.Open(in.checkpoint, note.VerifierList(verifier))
	if err != nil {
		return nil, errSignature
	}
	signed, err := note.Sign(&note.Note{Text: n.Text}, w.signer)
	if err != nil {
		return nil, err
	}
	// Remembered first: a cosignature that the witness has forgotten is worth nothing.
	if tree.N > last.N {
		only, err := note.Sign(&note.Note{Text: n.Text, Sigs: n.Sigs})
		if err != nil {
			return nil, err
		}
		if err := w.state.put(origin, only); err != nil {
			return nil, err
		}
	}
	return signed[len(n.Text)+1:], nil
}

// Sizes are the sizes of the logs that were last cosigned, by origin.
func (w *Witness) Sizes() map[string]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	sizes := map[string]int64{}
	for origin, msg := range w.state.logs {
		if lines := strings.SplitN(string(msg), "\n", 3); len(lines) == 3 {
			sizes[origin], _ = strconv.ParseInt(lines[1], 10, 64)
		}
	}
	return sizes
}
