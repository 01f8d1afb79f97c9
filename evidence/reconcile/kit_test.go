package reconcile_test

import (
	"golang.org/x/crypto/ssh"

	"sallyport/audit/event"
	"sallyport/evidence/populations"
	"sallyport/internal/history"
)

// decisionOf is the id of the last decision.
func decisionOf(s *scene) (id string) {
	for i, leaf := range s.Leaves {
		e := populations.Read(int64(i), leaf)
		if d, ok := e.Known.(event.RequestDecided); ok {
			id = d.DecisionID
		}
	}
	return id
}

// intentOf is the id of the last certificate's event.
func intentOf(s *scene) (id string) {
	for i, leaf := range s.Leaves {
		if e := populations.Read(int64(i), leaf); e.Type == "certificate.issued" {
			id = e.ID
		}
	}
	return id
}

func fingerprint(p history.Person) string { return ssh.FingerprintSHA256(p.Key) }
