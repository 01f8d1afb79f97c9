package policy

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/names"
)

var (
	percentForm    = regexp.MustCompile(`^([1-9][0-9]?|100)%$`)
	comparisonForm = regexp.MustCompile(`^(<|<=|>|>=|==|!=) *(-?[0-9]+(\.[0-9]+)?)$`)
	wallTimeForm   = "2006-01-02T15:04"
	onFailures     = []string{string(HoldOnFailure), string(AbortOnFailure), string(RollbackOnFailure)}
)

// deployments reads the section.
func (p *reader) deployments(list []deployment, out *Policy) error {
	if len(list) > MaxDeployments {
		return p.fault("deployments", "%d deployments are more than %d", len(list), MaxDeployments)
	}
	named, of := map[string]bool{}, map[[2]string]bool{}
	for i, d := range list {
		path := fmt.Sprintf("deployments[%d]", i)
		read, err := p.deployment(path, d)
		if err != nil {
			return err
		}
		if named[d.Name] {
			return p.fault(path+".name", "another deployment is named %q", d.Name)
		}
		// Were there two, their order would decide what an agent may do.
		if of[[2]string{d.Service, d.Environment}] {
			return p.fault(path+".service", "another deployment is of %s in %s", d.Service, d.Environment)
		}
		named[d.Name], of[[2]string{d.Service, d.Environment}] = true, true
		if err := p.deploymentTests(path, d.Tests, read); err != nil {
			return err
		}
		out.Deployments = append(out.Deployments, *read)
	}
	return nil
}

func (p *reader) deployment(path string, d deployment) (out *Deployment, err error) {
	out = &Deployment{Name: d.Name, Description: d.Description, Service: d.Service, Environment: d.Environment, Login: d.Login}
	for key, s := range map[string]string{"name": d.Name, "service": d.Service, "environment": d.Environment} {
		if !nameForm.MatchString(s) {
			return nil, p.fault(path+"."+key, "%q is not a name of at most 63 lower-case letters, digits and hyphens", s)
		}
	}
	if len(d.Agents) == 0 || len(d.Agents) > MaxTrustEntries {
		return nil, p.fault(path+".agents", "name 1 to %d trust entries", MaxTrustEntries)
	}
	for i, a := range d.Agents {
		if !nameForm.MatchString(a) || slices.Index(d.Agents, a) != i {
			return nil, p.fault(fmt.Sprintf("%s.agents[%d]", path, i), "%q is not a trust entry's name, or stands twice", a)
		}
	}
	out.Agents = d.Agents
	if d.Where == "*" {
		return nil, p.fault(path+".where", "a deployment is of some hosts, such as class=api, env=prod")
	}
	if out.Where, err = p.selector(path+".where", d.Where); err != nil {
		return nil, err
	}
	if !names.Login(d.Login) {
		return nil, p.fault(path+".login", "%q is not a login: it must match %s", d.Login, names.LoginForm)
	}
	if out.Command, err = p.command(path+".command", d.Command); err != nil {
		return nil, err
	}
	out.RollbackCommand = out.Command
	if d.RollbackCommand != "" {
		if out.RollbackCommand, err = p.command(path+".rollback_command", d.RollbackCommand); err != nil {
			return nil, err
		}
	}
	if err := p.agentCertificate(path+".certificate", d.Certificate, out); err != nil {
		return nil, err
	}
	if out.Lease, err = p.duration(path+".lease", d.Lease, DefaultLease, MinLease, MaxLease); err != nil {
		return nil, err
	}
	if err := p.rollout(path, d, out); err != nil {
		return nil, err
	}
	if err := p.freezes(path+".freezes", d.Freezes, out); err != nil {
		return nil, err
	}
	if out.Stages, err = p.stages(path+".approvals", d.Approvals); err != nil {
		return nil, err
	}
	if out.Override, err = p.stages(path+".override", d.Override); err != nil {
		return nil, err
	}
	if out.Proof, err = p.proof(path, d.Assurance, d.MaxAge, d.ACRValues); err != nil {
		return nil, err
	}
	if d.Control != nil {
		if err := p.names(path+".control", d.Control, MaxGroups); err != nil {
			return nil, err
		}
	}
	out.Control = d.Control
	return out, nil
}

// command takes one line of printable ASCII, which sshd hands to the login's shell. In
// it {digest} is the only thing that stands for something else.
func (p *reader) command(path, s string) (string, error) {
	if s == "" || len(s) > MaxCommand || strings.TrimSpace(s) != s ||
		strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) {
		return "", p.fault(path, "a command is one line of at most %d printable ASCII characters", MaxCommand)
	}
	if rest := strings.ReplaceAll(s, "{digest}", ""); strings.ContainsAny(rest, "{}") {
		return "", p.fault(path, "braces stand for nothing but {digest}")
	}
	return s, nil
}

func (p *reader) agentCertificate(path string, c agentCertificate, out *Deployment) (err error) {
	out.CertificateLifetime, err = p.duration(path+".lifetime", c.Lifetime, MaxAgentCertificate, MinCertificateLifetime, MaxAgentCertificate)
	if err != nil {
		return err
	}
	if len(c.SourceAddress) == 0 {
		return p.fault(path+".source_address", "say from where agents come: a certificate that is good from anywhere is good for whoever steals it")
	}
	if out.SourceAddress, err = p.cidrs(path+".source_address", c.SourceAddress); err != nil {
		return err
	}
	out.Uses = c.Uses
	if c.Uses == 0 {
		out.Uses = 1
	}
	if out.Uses < 1 || out.Uses > MaxUses {
		return p.fault(path+".uses", "must be between 1 and %d", MaxUses)
	}
	return nil
}

// cidrs reads a list of blocks, as text in their only form.
func (p *reader) cidrs(path string, list []string) ([]string, error) {
	if len(list) > MaxSourceAddresses {
		return nil, p.fault(path, "%d blocks are more than %d", len(list), MaxSourceAddresses)
	}
	for i, s := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, p.fault(at, "%q is not a CIDR block such as 10.0.0.0/8", s)
		}
		if prefix.String() != s || prefix != prefix.Masked() {
			return nil, p.fault(at, "%q is not in its only form; write %s", s, prefix.Masked())
		}
	}
	return list, nil
}

func (p *reader) stages(path string, list []stage) (out []Stage, err error) {
	if len(list) > MaxStages {
		return nil, p.fault(path, "%d stages are more than %d", len(list), MaxStages)
	}
	for i, s := range list {
		st, err := p.stage(fmt.Sprintf("%s[%d].slots", path, i), s)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	return out, nil
}

func (p *reader) rollout(path string, d deployment, out *Deployment) (err error) {
	at, r := path+".plan", d.Plan
	if r.Canary != nil {
		b, err := p.batch(at+".canary", *r.Canary, path, d.Gates)
		if err != nil {
			return err
		}
		out.Plan.Canary = &b
	}
	if len(r.Batches) == 0 || len(r.Batches) > MaxBatches {
		return p.fault(at+".batches", "a plan has 1 to %d batches, the last of which is repeated", MaxBatches)
	}
	for i, b := range r.Batches {
		read, err := p.batch(fmt.Sprintf("%s.batches[%d]", at, i), b, path, d.Gates)
		if err != nil {
			return err
		}
		out.Plan.Batches = append(out.Plan.Batches, read)
	}
	if out.Plan.OpenFor, err = p.duration(at+".open_for", r.OpenFor, DefaultOpenFor, MinOpenFor, MaxOpenFor); err != nil {
		return err
	}
	if out.Plan.VerifyWithin, err = p.duration(at+".verify_within", r.VerifyWithin, DefaultVerifyWithin, MinOpenFor, MaxOpenFor); err != nil {
		return err
	}
	if out.Plan.Failures, err = p.share(at+".failures", r.Failures, 0); err != nil {
		return err
	}
	out.Plan.OnFailure = OnFailure(r.OnFailure)
	if r.OnFailure == "" {
		out.Plan.OnFailure = HoldOnFailure
	}
	return p.oneOf(at+".on_failure", "what can follow", []string{string(out.Plan.OnFailure)}, onFailures)
}

// share reads a number or a percentage. Where least is 1, it must be there.
func (p *reader) share(path string, s share, least int) (Share, error) {
	switch {
	case !s.set && least > 0:
		return Share{}, p.fault(path, "say how many: a number, or a percentage such as 25%%")
	case s.percent != "":
		if !percentForm.MatchString(s.percent) {
			return Share{}, p.fault(path, "%q is neither a number nor a percentage from 1%% to 100%%", s.percent)
		}
		n, err := strconv.Atoi(strings.TrimSuffix(s.percent, "%"))
		if err != nil {
			return Share{}, p.fault(path, "%q is not a percentage", s.percent)
		}
		return Share{Percent: n}, nil
	case s.count < least || s.count > MaxDeployedHosts:
		return Share{}, p.fault(path, "must be between %d and %d", least, MaxDeployedHosts)
	}
	return Share{Count: s.count}, nil
}

// batch reads a batch; every are the gates of all, which stand at the path above.
func (p *reader) batch(path string, b rolloutBatch, above string, every []gate) (out Batch, err error) {
	if out.Hosts, err = p.share(path+".hosts", b.Hosts, 1); err != nil {
		return out, err
	}
	if out.Soak, err = p.duration(path+".soak", b.Soak, 0, 0, MaxSoak); err != nil {
		return out, err
	}
	if len(b.Gates)+len(every) > MaxGates {
		return out, p.fault(path+".gates", "%d gates are more than %d", len(b.Gates)+len(every), MaxGates)
	}
	for _, list := range []struct {
		at    string
		gates []gate
	}{{above + ".gates", every}, {path + ".gates", b.Gates}} {
		for i, g := range list.gates {
			at := fmt.Sprintf("%s[%d]", list.at, i)
			read, err := p.gate(at, g)
			if err != nil {
				return out, err
			}
			if slices.ContainsFunc(out.Gates, func(o Gate) bool { return o.Name == g.Name }) {
				return out, p.fault(at+".name", "another gate of the batch is named %q", g.Name)
			}
			out.Gates = append(out.Gates, read)
		}
	}
	return out, nil
}

func (p *reader) freezes(path string, list []freeze, out *Deployment) error {
	if len(list) > MaxFreezes {
		return p.fault(path, "%d freezes are more than %d", len(list), MaxFreezes)
	}
	for i, f := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if !nameForm.MatchString(f.Name) {
			return p.fault(at+".name", "%q is not a name of at most 63 lower-case letters, digits and hyphens", f.Name)
		}
		if slices.ContainsFunc(out.Freezes, func(o Freeze) bool { return o.Name == f.Name }) {
			return p.fault(at+".name", "another freeze is named %q", f.Name)
		}
		read, err := p.freeze(at, f)
		if err != nil {
			return err
		}
		out.Freezes = append(out.Freezes, read)
	}
	return nil
}

func (p *reader) freeze(path string, f freeze) (out Freeze, err error) {
	out.Name = f.Name
	once := f.From != "" || f.Until != ""
	if once == (len(f.Times) > 0) {
		return out, p.fault(path, "a freeze has either from and until, or times of the week")
	}
	if !once {
		out.During, err = p.schedule(path, schedule{Zone: f.Zone, Times: f.Times})
		return out, err
	}
	if f.Zone == "" || f.Zone == "Local" {
		return out, p.fault(path+".zone", "a freeze needs the name of a time zone, such as Europe/Berlin or UTC")
	}
	zone, err := time.LoadLocation(f.Zone)
	if err != nil {
		return out, p.fault(path+".zone", "%q is not a time zone such as Europe/Berlin", f.Zone)
	}
	for _, end := range []struct {
		key, text string
		to        *time.Time
	}{{"from", f.From, &out.From}, {"until", f.Until, &out.Until}} {
		t, err := time.ParseInLocation(wallTimeForm, end.text, zone)
		if err != nil {
			return out, p.fault(path+"."+end.key, "%q is not a time such as 2026-12-20T18:00", end.text)
		}
		*end.to = t.UTC()
	}
	if !out.Until.After(out.From) {
		return out, p.fault(path+".until", "%s is not after %s", f.Until, f.From)
	}
	return out, nil
}

// deploymentTests runs the entry's own cases against it.
func (p *reader) deploymentTests(path string, list []deploymentTest, d *Deployment) error {
	if len(list) > MaxDeploymentTests {
		return p.fault(path+".tests", "%d cases are more than %d", len(list), MaxDeploymentTests)
	}
	for i, c := range list {
		at := fmt.Sprintf("%s.tests[%d]", path, i)
		switch {
		case strings.TrimSpace(c.Name) == "":
			return p.fault(at+".name", "a case needs a name")
		case (c.Hosts == 0) != (c.Batches == nil) || (c.At == "") != (c.Frozen == nil) || c.Hosts == 0 && c.At == "":
			return p.fault(at, "a case has hosts and batches, or at and frozen, or both")
		case c.Hosts < 0 || c.Hosts > MaxDeployedHosts:
			return p.fault(at+".hosts", "must be between 1 and %d", MaxDeployedHosts)
		}
		if got := d.Plan.Split(c.Hosts); c.Hosts > 0 && !slices.Equal(got, c.Batches) {
			return p.fault(at+".batches", "the case %q fails: the batches are %v", c.Name, got)
		}
		if c.At == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339, c.At)
		if err != nil {
			return p.fault(at+".at", "%q is not a time such as 2026-03-02T10:00:00Z", c.At)
		}
		if frozen := d.FrozenAt(t); (frozen != nil) != *c.Frozen {
			return p.fault(at+".frozen", "the case %q fails: frozen is %v", c.Name, frozen != nil)
		}
	}
	return nil
}
