package server

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"sallyport/api/hostapi"
	"sallyport/server/problem"
	"sallyport/server/signin"
)

// public are the parts of the log that tell nobody anything but whether it was
// rewritten, and the CA's public key. They need no sign-in.
func (s *Server) public(r chi.Router) {
	r.Get("/log/checkpoint", func(w http.ResponseWriter, r *http.Request) {
		text, err := s.log.Checkpoint(r.Context())
		send(w, r, "text/plain; charset=utf-8", "no-store", text, err)
	})
	r.Get("/log/witnessed", s.cosigned)
	r.Get("/log/vkey", func(w http.ResponseWriter, r *http.Request) {
		send(w, r, "text/plain; charset=utf-8", "no-store", []byte(s.log.VerifierKey()+"\n"), nil)
	})
	r.Get("/log/tile/*", func(w http.ResponseWriter, r *http.Request) {
		tile, err := s.log.Tile(r.Context(), chi.URLParam(r, "*"))
		// A tile never changes once it can be had (c2sp.org/tlog-tiles).
		send(w, r, "application/octet-stream", "public, max-age=31536000, immutable", tile, err)
	})
	r.Get(hostapi.KRLPath, func(w http.ResponseWriter, r *http.Request) {
		krl, err := s.revocations.KRL(r.Context())
		send(w, r, "application/octet-stream", "no-store", krl.Bytes, err)
	})
	r.Get(hostapi.KRLSignaturePath, func(w http.ResponseWriter, r *http.Request) {
		krl, err := s.revocations.KRL(r.Context())
		send(w, r, "text/plain; charset=utf-8", "no-store", krl.Signature, err)
	})
	r.Get("/ssh/ca.pub", func(w http.ResponseWriter, r *http.Request) {
		line := strings.TrimRight(s.broker.UserCA(), "\n") + "\n"
		send(w, r, "text/plain; charset=utf-8", "no-store", []byte(line), nil)
	})
}

// bundles are the log's entries themselves: for auditors.
func (s *Server) bundles(w http.ResponseWriter, r *http.Request) {
	caller, ok := signin.Caller(r.Context())
	if !ok {
		problem.Write(w, r, problem.ErrSignInNeeded)
		return
	}
	if err := s.requests.OnlyAuditors(r.Context(), caller, "GET /log/tile/entries/*"); err != nil {
		problem.Write(w, r, err)
		return
	}
	path := chi.URLParam(r, "*")
	if err := s.requests.DiscloseBundle(r.Context(), caller, path); err != nil {
		problem.Write(w, r, err)
		return
	}
	bundle, err := s.log.Bundle(r.Context(), path)
	send(w, r, "application/octet-stream", "private, max-age=3600", bundle, err)
}

func send(w http.ResponseWriter, r *http.Request, contentType, cache string, data []byte, err error) {
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", cache)
	w.Write(data)
}
