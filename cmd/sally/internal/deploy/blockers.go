package deploy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"sallyport/api"
	"sallyport/internal/refusal"
)

func problem(err error) *api.Problem {
	p, _ := errors.AsType[*api.Problem](err)
	return p
}

// code is the code of a refusal.
func code(err error) string {
	if p := problem(err); p != nil {
		return p.Code
	}
	return ""
}

// blocker reports whether the broker only says that it cannot be now.
func blocker(err error) bool {
	p := problem(err)
	return p != nil && (p.Status == http.StatusConflict && !strings.HasPrefix(p.Code, "agent-") || p.Status == http.StatusLocked)
}

// later reports whether the same call may succeed in a while.
func later(err error) bool {
	if _, ours := errors.AsType[*refusal.Error](err); ours || errors.Is(err, context.Canceled) {
		return false
	}
	if p := problem(err); p != nil {
		return api.Passing(err) || p.Status == http.StatusTooManyRequests
	}
	var network net.Error
	return api.Passing(err) || errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded)
}

// unauthenticated reports whether the run is over, or was revoked.
func unauthenticated(err error) bool {
	p := problem(err)
	return p != nil && p.Status == http.StatusUnauthorized
}

// closed reports whether the batch is not open any more.
func closed(err error) bool {
	return errors.Is(err, errClosed) || code(err) == "batch-not-open" || code(err) == "deployment-over"
}

func said(err error) string {
	if p := problem(err); p != nil && p.Detail != "" {
		return p.Detail
	}
	return err.Error()
}

// standing says in a line what the deployment waits for, and when that ends at the latest
// that is sure not to end before.
func standing(d api.Deployment) (why string, until *time.Time) {
	var parts []string
	for _, b := range d.Blockers {
		part := b.Why
		if current := busy(d); current != nil && b.Code == "batch-before" {
			part = progress(*current)
		}
		parts = append(parts, part)
		if b.Until != nil && (until == nil || b.Until.After(*until)) {
			until = b.Until
		}
	}
	if len(parts) == 0 {
		if current := busy(d); current != nil {
			parts = append(parts, progress(*current))
		} else if d.State == "verifying" {
			parts = append(parts, "every host must once more show that it is sealed")
		}
	}
	return strings.Join(parts, "; "), until
}

// progress says how a batch stands that is busy.
func progress(b api.DeploymentBatch) string {
	name := fmt.Sprintf("batch %d", b.Number)
	if b.Rollback {
		name = "the rollback"
	}
	return fmt.Sprintf("%s is %s%s", name, b.State, gates(b))
}

// busy is the batch between its closing and its end, or nil.
func busy(d api.Deployment) *api.DeploymentBatch {
	for i, b := range d.Batches {
		if slices.Contains([]string{"closing", "sealing", "soaking", "gating"}, b.State) {
			return &d.Batches[i]
		}
	}
	return nil
}

// gates says how a batch's gates stand that have not passed.
func gates(b api.DeploymentBatch) string {
	if b.State == "sealing" {
		sealed := 0
		for _, h := range b.Hosts {
			if h.State != "verifying" {
				sealed++
			}
		}
		return fmt.Sprintf(" (%d of %d hosts)", sealed, len(b.Hosts))
	}
	if b.State != "gating" {
		return ""
	}
	var open []string
	for _, g := range b.Gates {
		if g.Verdict == "pass" {
			continue
		}
		text := g.Name
		switch {
		case len(g.Needs) > 0:
			text += " needs " + strings.Join(g.Needs, " and ")
		case g.Times > 1:
			text += fmt.Sprintf(" %d/%d", g.Passes, g.Times)
		}
		open = append(open, text)
	}
	if len(open) == 0 {
		return ""
	}
	return " (" + strings.Join(open, ", ") + ")"
}
