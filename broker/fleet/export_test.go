package fleet

import (
	"context"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/api/hostapi"
	"sallyport/broker/posture"
)

// WriteSeen writes down now which hosts called.
func WriteSeen(s *Service, ctx context.Context) error { return s.writeSeen(ctx) }

// LookAtAll looks at the hosts whose turn it is, with a look of the test's own.
func LookAtAll(s *Service, ctx context.Context, look func(posture.Door, string) posture.Probe) error {
	s.look = func(_ context.Context, d posture.Door, login string, _ ssh.PublicKey, _ []hostapi.Listener, now func() time.Time) posture.Probe {
		p := look(d, login)
		p.At, p.Login = now(), login
		return p
	}
	return s.lookAtAll(ctx)
}
