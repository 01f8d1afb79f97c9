package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"sallyport/api"
	"sallyport/api/hostapi"
	"sallyport/audit/recording"
)

// studio is a host that brings recordings of one session, encrypted for one auditor.
type studio struct {
	t       testing.TB
	h       *house
	host    *hostapi.Client
	name    string // of the session, as the host has it
	session string // as the broker has it
	key     *age.X25519Identity
	file    string // with key
	seq     uint64
}

func newStudio(t testing.TB, h *house) *studio {
	t.Helper()
	var token api.JoinToken
	h.signIn(operator).call(http.MethodPost, "/hosts/join-tokens", api.JoinTokenInput{Name: "db-1", Logins: []string{"dba"}, Address: "127.0.0.1:1"}, &token, http.StatusCreated)
	s := &studio{t: t, h: h, host: h.newcomer(), name: strings.Repeat("ab", 16)}
	e, _, err := s.host.Enrol(t.Context(), hostapi.EnrolmentInput{Token: token.Token, Facts: hostapi.Facts{OS: "Debian 12"}})
	h.must(err)
	s.host.ID = e.HostID
	s.report(hostapi.KindSessionStarted, hostapi.SessionStarted{Session: s.name, Method: "password", Login: "dba", Peer: "192.0.2.9", StartedAt: time.Now().Add(-time.Hour)})
	var page api.Page[api.Session]
	h.signIn(auditor).call(http.MethodGet, "/hosts/db-1/sessions", nil, &page, http.StatusOK)
	s.session = page.Items[0].ID
	s.key, s.file = s.identity("key.txt")
	return s
}

// identity makes an auditor's key, in a file as age-keygen writes it.
func (s *studio) identity(name string) (*age.X25519Identity, string) {
	s.t.Helper()
	id, err := age.GenerateX25519Identity()
	s.h.must(err)
	file := filepath.Join(s.t.TempDir(), name)
	s.h.must(os.WriteFile(file, []byte("# created: today\n# public key: "+id.Recipient().String()+"\n"+id.String()+"\n"), 0o600))
	return id, file
}

func (s *studio) report(kind hostapi.Kind, data any) {
	s.t.Helper()
	text, err := json.Marshal(data)
	s.h.must(err)
	s.seq++
	_, err = s.host.Report(s.t.Context(), []hostapi.Report{{BootID: "boot", Seq: s.seq, Time: time.Now(), Kind: kind, Data: text}})
	s.h.must(err)
}

// brings has the host bring a recording, one event to a part.
func (s *studio) brings(number int, header recording.Header, events ...recording.Event) []byte {
	s.t.Helper()
	header.Version, header.Timestamp = 2, time.Now().Unix()
	line, err := json.Marshal(header)
	s.h.must(err)
	all := []byte(recording.Magic)
	for i := 0; ; i++ {
		part, err := recording.Part([]age.Recipient{s.key.Recipient()}, append(line, '\n'))
		s.h.must(err)
		all = append(all, part...)
		if i == len(events) {
			break
		}
		line, err = json.Marshal(events[i])
		s.h.must(err)
	}
	for at := 0; at < len(all); at += hostapi.MaxPiece {
		_, err := s.host.Record(s.t.Context(), s.name, number, int64(at), all[at:min(len(all), at+hostapi.MaxPiece)])
		s.h.must(err)
	}
	return all
}

// ends has the host tell of a recording's end.
func (s *studio) ends(number int, all []byte, terminal bool) {
	s.t.Helper()
	sum := sha256.Sum256(all)
	s.report(hostapi.KindSessionRecorded, hostapi.SessionRecorded{Session: s.name, Number: number, Login: "dba", Bytes: int64(len(all)), SHA256: hex.EncodeToString(sum[:]),
		Recipients: []string{s.key.Recipient().String()}, StartedAt: time.Now().Add(-time.Hour), EndedAt: time.Now().Add(-50 * time.Minute), Terminal: terminal})
}

func (s *studio) records(number int, header recording.Header, events ...recording.Event) {
	s.t.Helper()
	s.ends(number, s.brings(number, header, events...), header.Sallyport.Terminal)
}

func screenOf(columns, rows int) recording.Header {
	return recording.Header{Width: columns, Height: rows, Sallyport: recording.About{Terminal: true}}
}

func shows(at time.Duration, text string) recording.Event {
	return recording.Event{At: at, Code: recording.Output, Data: text}
}
