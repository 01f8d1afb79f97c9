package brokertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"sallyport/api/hostapi"
)

// record takes a piece of a recording.
func (b *Broker) record(w http.ResponseWriter, r *http.Request, piece []byte) {
	offset, err := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64)
	if err != nil || len(piece) > hostapi.MaxPiece {
		b.refuse(w, http.StatusUnprocessableEntity, "recording", "this is no piece of a recording")
		return
	}
	name := r.PathValue("session") + "-" + r.PathValue("number")
	b.mu.Lock()
	if offset == int64(len(b.records[name])) {
		b.records[name] = append(b.records[name], piece...)
	}
	have := int64(len(b.records[name]))
	b.change()
	b.mu.Unlock()
	_ = json.NewEncoder(w).Encode(hostapi.Recorded{Bytes: have})
}

// Recording is what it has of one, so far.
func (b *Broker) Recording(session string, number int) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.records[fmt.Sprintf("%s-%d", session, number)])
}
