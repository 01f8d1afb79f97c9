package pages

import (
	"fmt"
	"strings"
	"time"
)

// saying is where a deployment stands and what follows, for somebody who has been woken.
type saying struct {
	Headline string
	Text     string
	// Until is when it ends by itself, and Then how that is said: "It ends", "It closes".
	Until *time.Time
	Then  string
}

// Says is how the deployment stands, in a sentence or two.
func (v deploymentView) Says() saying {
	b := v.Current()
	switch v.State {
	case "planned":
		return saying{Headline: "It is about to begin"}
	case "awaiting_approval":
		return saying{Headline: "It waits for approval", Text: "Nothing is open on any host. The pipeline goes on by itself as soon as it is approved."}
	case "verifying":
		return saying{Headline: "Every batch has passed: every host must show once more that it is sealed", Text: "That takes minutes. Nothing is open."}
	case "complete":
		if n := len(v.Unproved()); n > 0 {
			return saying{Headline: fmt.Sprintf("Complete, but %s no longer known to be sealed", isAre(n)), Text: "All were when it ended. Somebody was there since, or something has changed."}
		}
		return saying{Headline: "Complete: every host is sealed and verified", Text: "The next deployment would roll back to this artifact."}
	case "aborted":
		return saying{Headline: "Aborted" + because(v.Why), Text: v.left()}
	case "rolled_back":
		return saying{Headline: "Rolled back to what was verified before", Text: why(v.Why)}
	case "rollback_failed":
		return saying{Headline: "The rollback failed" + because(v.Why), Text: "Some hosts have the one artifact, some the other. Look at the hosts below."}
	case "held":
		if b == nil {
			return saying{Headline: "Held: nothing is opened until somebody acts"}
		}
	case "rolling_back":
		if b == nil {
			return saying{Headline: "Rolling back: the pipeline opens the hosts to put back what was there", Text: why(v.Why)}
		}
	}
	if b == nil {
		switch {
		case v.Frozen():
			return saying{Headline: "Frozen: no batch is opened now"}
		case v.Next > 0 && v.Next <= len(v.Batches):
			next := v.Line()[v.Next-1]
			return saying{Headline: fmt.Sprintf("%s is next: the pipeline may open it now", next.Name()),
				Text: "Nothing is open. If the pipeline’s job has ended, run it again: it takes the deployment up."}
		}
		return saying{Headline: "It is on its way"}
	}
	said := b.says()
	if v.State == "held" {
		said.Headline = "Held. " + said.Headline
	}
	if v.State == "rolling_back" {
		said.Text = strings.TrimSpace(said.Text + " " + why(v.Why))
	}
	return said
}

// Short is how it stands, in half a line, with what keeps it from going on.
func (v deploymentView) Short() string {
	blockers := v.Blockers()
	switch {
	case len(blockers) == 0:
		return v.Says().Headline
	case v.State == "held":
		return "Held: " + blockers[0].Why
	}
	return v.Says().Headline + "; " + blockers[0].Why
}

// left is what an aborted deployment left behind.
func (v deploymentView) left() string {
	if !v.Opened() {
		return "Nothing was opened."
	}
	return "What was deployed until then stays on its hosts; nothing was put back."
}

func (b batchView) says() saying {
	all := len(b.Hosts)
	switch b.State {
	case "open":
		return saying{fmt.Sprintf("%s is open: %d of %s reported", b.Name(), b.Reported(), hostsOf(all)),
			"The pipeline can log in to these hosts and to no others. When all are reported they are closed and must show that they are sealed.", b.Until, "It closes at the latest"}
	case "closing":
		return saying{Headline: b.Name() + " is closing", Text: "Its certificates and sessions are being ended."}
	case "sealing":
		return saying{fmt.Sprintf("%s is being sealed: %d of %s have shown that they are", b.Name(), b.Proved(), hostsOf(all)),
			"What does not show it in time counts as failed.", b.Until, "That ends at the latest"}
	case "soaking":
		return saying{b.Name() + " is sealed and soaks", "Nothing is open. Then its gates decide.", b.Until, "The soak ends"}
	case "gating":
		waiting, people := 0, false
		for _, g := range b.Gates {
			if g.Verdict == "waiting" {
				waiting++
				people = people || g.Kind == "approval"
			}
		}
		said := saying{Headline: fmt.Sprintf("%s is at its gates: %d of %s left to pass", b.Name(), waiting, countOf(len(b.Gates), "gate")), Text: "They are measured by themselves."}
		if people {
			said.Text = "People must approve, as it says below."
		}
		return said
	}
	return saying{Headline: b.Name() + " is " + b.State}
}

func hostsOf(n int) string { return countOf(n, "host") }

func countOf(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprint(n, " ", noun, "s")
}

func isAre(n int) string {
	if n == 1 {
		return "1 host is"
	}
	return fmt.Sprintf("%d hosts are", n)
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

func why(why string) string {
	if why == "" {
		return ""
	}
	return "Because " + why + "."
}
