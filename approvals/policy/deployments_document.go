package policy

// The deployments of the document as YAML has them.

type deployment struct {
	Name            string           `yaml:"name" need:"true" form:"rule name" doc:"Unique among the deployments."`
	Description     string           `yaml:"description" doc:"For people who read the policy."`
	Service         string           `yaml:"service" need:"true" form:"rule name" doc:"What is deployed."`
	Environment     string           `yaml:"environment" need:"true" form:"rule name" doc:"Where, in one word; service and environment together are unique."`
	Agents          []string         `yaml:"agents" need:"true" form:"trust entries" doc:"Names of the trust entries whose agents may deploy it."`
	Where           string           `yaml:"where" need:"true" form:"selector" doc:"Which hosts: a Kubernetes label selector."`
	Login           string           `yaml:"login" need:"true" form:"login" doc:"The Unix account that deploys."`
	Command         string           `yaml:"command" need:"true" form:"command" doc:"The only command that certificates run; {digest} stands for the deployment's artifact."`
	RollbackCommand string           `yaml:"rollback_command" form:"command" doc:"The same for a rollback; command if silent."`
	Certificate     agentCertificate `yaml:"certificate" need:"true" doc:"What certificates are like."`
	Lease           string           `yaml:"lease" form:"duration" doc:"How long an agent may be silent while a batch is open; 10m if silent, 1m to 1h."`
	Plan            rollout          `yaml:"plan" need:"true" doc:"How it goes from host to host."`
	Gates           []gate           `yaml:"gates" form:"gates" doc:"Conditions after every batch."`
	Freezes         []freeze         `yaml:"freezes" form:"freezes" doc:"Times in which nothing is deployed."`
	Approvals       []stage          `yaml:"approvals" form:"stages" doc:"Who must approve before it starts; nobody if silent."`
	Override        []stage          `yaml:"override" form:"stages" doc:"Who can let it go on in a freeze; nobody can if silent."`
	Assurance       string           `yaml:"assurance" form:"assurance" doc:"What proves an approval, of gates and overrides too: session or provider."`
	MaxAge          string           `yaml:"max_age" form:"duration" doc:"With provider: how long ago the approver may have been authenticated when deciding."`
	ACRValues       []string         `yaml:"acr_values" form:"acr values" doc:"With provider: authentication context classes, one of which the provider must state."`
	Control         []string         `yaml:"control" form:"groups" doc:"Groups that may stop, resume, abort and roll back, as operators may."`
	Tests           []deploymentTest `yaml:"tests" form:"deployment tests" doc:"What must become of it. They run whenever the policy is read."`
}

type agentCertificate struct {
	Lifetime      string   `yaml:"lifetime" form:"duration" doc:"5m if silent, and at most."`
	SourceAddress []string `yaml:"source_address" need:"true" form:"agent cidrs" doc:"CIDR blocks from which certificates are good. Behind NAT that is the address that hosts see."`
	Uses          int      `yaml:"uses" form:"uses" doc:"Sessions that one certificate opens; 1 if silent."`
}

type rollout struct {
	Canary       *rolloutBatch  `yaml:"canary" doc:"The first batch, by itself."`
	Batches      []rolloutBatch `yaml:"batches" need:"true" form:"batches" doc:"In order; the last is repeated until no host is left."`
	OpenFor      string         `yaml:"open_for" form:"duration" doc:"The longest that a batch is open; 30m if silent, 1m to 4h."`
	VerifyWithin string         `yaml:"verify_within" form:"duration" doc:"How long hosts have to show that they are sealed; 10m if silent."`
	Failures     share          `yaml:"failures" doc:"Hosts on which it may fail, over all batches: a number or a percentage; 0 if silent."`
	OnFailure    string         `yaml:"on_failure" form:"on failure" doc:"What follows when a batch has failed: hold (the default), abort or rollback."`
}

type rolloutBatch struct {
	Hosts share  `yaml:"hosts" need:"true" doc:"A number, or a percentage of all hosts such as 25%."`
	Soak  string `yaml:"soak" form:"duration" doc:"How long its hosts are watched, sealed, before the gates; nothing if silent, at most 720h."`
	Gates []gate `yaml:"gates" form:"gates" doc:"Conditions after this batch, besides those after every batch."`
}

type gate struct {
	Name       string          `yaml:"name" need:"true" form:"rule name" doc:"Unique among those of the batch."`
	Reported   *reportedGate   `yaml:"reported" doc:"What the agent reported."`
	HTTP       *httpGate       `yaml:"http" doc:"An HTTP answer."`
	Prometheus *prometheusGate `yaml:"prometheus" doc:"A query's result. No data, or NaN, is inconclusive and never passes."`
	Posture    *postureGate    `yaml:"posture" doc:"That hosts are still sealed, and what listens on them."`
	Approval   *stage          `yaml:"approval" doc:"People, none of whom started the deployment."`
	Every      string          `yaml:"every" form:"duration" doc:"Of http, prometheus, posture: how often it is measured; 30s if silent."`
	Times      int             `yaml:"times" form:"gate times" doc:"How many times in a row it must pass; 1 if silent."`
	Failures   int             `yaml:"failures" form:"gate failures" doc:"How often it may fail; never if silent."`
	Within     string          `yaml:"within" form:"duration" doc:"By when it must have passed, else it is inconclusive; 15m if silent, 168h of approval."`
}

type reportedGate struct {
	OK share `yaml:"ok" need:"true" doc:"Hosts of the batch that must be ok: a number or a percentage."`
}

type httpGate struct {
	URL      string   `yaml:"url" need:"true" doc:"https, or http where reach says where to; {host} stands for each host's name in turn."`
	Status   int      `yaml:"status" form:"status" doc:"Of the answer; 200 if silent."`
	Contains string   `yaml:"contains" doc:"What the answer's first 64 KiB must contain."`
	Reach    []string `yaml:"reach" form:"cidrs" doc:"CIDR blocks that may be dialled although they are not public."`
}

type prometheusGate struct {
	URL   string   `yaml:"url" need:"true" doc:"Of Prometheus, without /api/v1."`
	Query string   `yaml:"query" need:"true" doc:"PromQL; {service}, {environment}, {deployment} and {batch} stand for what they say."`
	Is    string   `yaml:"is" need:"true" form:"comparison" doc:"What every sample must be, such as '< 0.01'."`
	Reach []string `yaml:"reach" form:"cidrs" doc:"CIDR blocks that may be dialled although they are not public."`
}

type postureGate struct {
	Ports []int `yaml:"ports" form:"gate ports" doc:"Ports on which something may listen besides sshd's."`
}

type freeze struct {
	Name  string  `yaml:"name" need:"true" form:"rule name" doc:"Unique in the list."`
	Zone  string  `yaml:"zone" need:"true" form:"zone" doc:"A time zone's name, such as Europe/Berlin or UTC."`
	From  string  `yaml:"from" form:"wall time" doc:"Such as 2026-12-20T18:00, by the clock on the wall of the zone."`
	Until string  `yaml:"until" form:"wall time" doc:"Such as 2027-01-04T06:00, which is no longer in it."`
	Times []hours `yaml:"times" form:"freeze times" doc:"Or stretches of days."`
}

type deploymentTest struct {
	Name    string `yaml:"name" need:"true" doc:"What the case shows."`
	Hosts   int    `yaml:"hosts" form:"hosts" doc:"How many there are."`
	Batches []int  `yaml:"batches" form:"sizes" doc:"How many each batch has then, the canary first."`
	At      string `yaml:"at" form:"time" doc:"When."`
	Frozen  *bool  `yaml:"frozen" doc:"Whether it is frozen then."`
}

// share is a number, or a percentage as text.
type share struct {
	set     bool
	count   int
	percent string
}

// UnmarshalYAML reads either form.
func (s *share) UnmarshalYAML(decode func(any) error) error {
	s.set = true
	if decode(&s.count) == nil {
		return nil
	}
	s.count = 0
	return decode(&s.percent)
}
