package policy

// The document as YAML has it. Pointers tell a missing key from an empty value.
//
// The tags are the one place from which the schema for editors is made: doc is
// what an editor shows, need marks keys that must be there, and form names what
// a value must look like (forms, in schema.go).
type document struct {
	Sallyport int                 `yaml:"sallyport" need:"true" form:"version" doc:"Version of this format."`
	Assurance string              `yaml:"assurance" form:"assurance" doc:"What proves a decision under rules that do not say: session (the broker's word) or provider (the identity provider's signature, the default)."`
	Roles     map[string][]string `yaml:"roles" form:"roles" doc:"Groups whose members are operators or auditors."`
	Rules     []rule              `yaml:"rules" need:"true" form:"rules" doc:"Who may ask for what, and who must approve. The first rule that fits decides."`
	Listen    []listen            `yaml:"listen" form:"listens" doc:"What may listen on hosts, beside sshd. The first entry that fits a host is its list; if none fits, nothing may."`
	Agents    []agent             `yaml:"agents" form:"agents" doc:"Which jobs of which pipelines are deploy agents. The first entry that fits decides."`
	Tests     []testCase          `yaml:"tests" form:"tests" doc:"Asks and what must become of them. They run whenever the policy is read; one that fails makes it unusable."`

	Deployments []deployment `yaml:"deployments" form:"deployments" doc:"Which agents may deploy what, where and by which plan."`
}

type listen struct {
	Where string   `yaml:"where" need:"true" form:"selector" doc:"Which hosts: a Kubernetes label selector, or * for every host."`
	Ports []string `yaml:"ports" need:"true" form:"ports" doc:"Such as tcp/5432, or with the one program that may have it: tcp/6379 /usr/bin/redis-server; * stands for part of a name."`
}

type rule struct {
	Name          string       `yaml:"name" need:"true" form:"rule name" doc:"Unique in the document."`
	Description   string       `yaml:"description" doc:"For people who read the policy."`
	Who           []string     `yaml:"who" need:"true" form:"groups" doc:"Members of any of these groups may ask."`
	Where         string       `yaml:"where" need:"true" form:"selector" doc:"Which hosts: a Kubernetes label selector, or * for every host."`
	Logins        []string     `yaml:"logins" need:"true" form:"logins" doc:"Unix accounts, exactly."`
	Duration      duration     `yaml:"duration" need:"true" doc:"How long access lasts."`
	ApproveWithin string       `yaml:"approve_within" form:"duration" doc:"How long a request waits for its approvals before it expires; 1h if silent, at most 720h."`
	StartWithin   string       `yaml:"start_within" form:"duration" doc:"A grant not used for so long after its start has ended; if silent, it lasts until its end."`
	MaxSignInAge  string       `yaml:"max_sign_in_age" form:"duration" doc:"How long ago the identity provider may have vouched for the requester at each certificate; if silent, as long as sign-ins last."`
	Certificate   certificate  `yaml:"certificate" doc:"What certificates under this rule are like."`
	SingleUse     bool         `yaml:"single_use" doc:"A grant gives one certificate and no other."`
	AtEnd         string       `yaml:"at_end" form:"at end" doc:"What becomes of sessions when the grant's time is up: end (also if silent) or keep."`
	Record        bool         `yaml:"record" doc:"Terminal sessions are recorded; a host that cannot lets nobody in."`
	Automatic     *automatic   `yaml:"automatic" doc:"Approved at once with nobody asked: always (true), or at the times of a schedule and by approvals otherwise."`
	Approvals     []stage      `yaml:"approvals" form:"stages" doc:"Stages, passed in order."`
	Assurance     string       `yaml:"assurance" form:"assurance" doc:"What proves a decision: session or provider."`
	MaxAge        string       `yaml:"max_age" form:"duration" doc:"With provider: how long ago the approver may have been authenticated when deciding."`
	ACRValues     []string     `yaml:"acr_values" form:"acr values" doc:"With provider: authentication context classes, one of which the provider must state."`
	Reason        text         `yaml:"reason" doc:"What the reason must be like."`
	Ticket        text         `yaml:"ticket" doc:"What the ticket must be like."`
	Extend        *extend      `yaml:"extend" doc:"How a grant may be followed by another without a gap; never if silent."`
	Remind        string       `yaml:"remind" form:"duration" doc:"Approvers are reminded so long before a request expires."`
	Escalate      []escalation `yaml:"escalate" form:"escalations" doc:"Further groups that are told, in order, while nobody decides."`
	Emergency     *emergency   `yaml:"emergency" doc:"Who may start before anybody has approved, and who reviews it; nobody if silent."`
}

type duration struct {
	Default string `yaml:"default" form:"duration" doc:"For asks that do not say; 30m if silent, or max if that is less."`
	Max     string `yaml:"max" need:"true" form:"duration" doc:"The longest; at most 168h."`
}

type certificate struct {
	Lifetime       string   `yaml:"lifetime" form:"duration" doc:"Of each certificate; 5m if silent, at most 1h."`
	SourceAddress  []string `yaml:"source_address" form:"cidrs" doc:"CIDR blocks from which certificates are good; anywhere if silent."`
	PTY            *bool    `yaml:"pty" doc:"Whether a terminal is allowed; true if silent."`
	Forwarding     []string `yaml:"forwarding" form:"forwarding" doc:"Kinds of forwarding that are allowed; none if silent."`
	KeyTypes       []string `yaml:"key_types" form:"key types" doc:"SSH key types that may be certified; all strong ones if silent."`
	VerifyRequired bool     `yaml:"verify_required" doc:"The security key must verify its person (PIN or fingerprint) at each login; key_types must then name sk- types only."`
}

type stage struct {
	Slots []slot `yaml:"slots" need:"true" form:"slots" doc:"All of them must be filled; one person fills one."`
}

type slot struct {
	Groups []string `yaml:"groups" need:"true" form:"groups" doc:"Members of any of these groups."`
	Count  *int     `yaml:"count" form:"count" doc:"How many people; 1 if silent."`
}

type text struct {
	Required  bool   `yaml:"required" doc:"Whether it must be given."`
	MinLength int    `yaml:"min_length" form:"min length" doc:"In characters."`
	Pattern   string `yaml:"pattern" doc:"A regular expression (RE2) that the whole text must match."`
	Message   string `yaml:"message" doc:"For whoever does not comply."`
}

// automatic is true, false, or a schedule.
type automatic struct {
	always   bool
	schedule *schedule
}

type schedule struct {
	Zone  string  `yaml:"zone" need:"true" form:"zone" doc:"A time zone's name, such as Europe/Berlin or UTC."`
	Times []hours `yaml:"times" need:"true" form:"times" doc:"Stretches of days."`
}

type hours struct {
	Days []string `yaml:"days" need:"true" form:"days" doc:"mon, tue, wed, thu, fri, sat, sun."`
	From string   `yaml:"from" need:"true" form:"wall clock" doc:"Such as 09:00."`
	To   string   `yaml:"to" need:"true" form:"wall clock" doc:"Such as 17:00, which is no longer in it; 24:00 is the end of the day."`
}

type extend struct {
	Times     int    `yaml:"times" need:"true" form:"extensions" doc:"How often."`
	By        string `yaml:"by" need:"true" form:"duration" doc:"How long each time; at most duration.max."`
	Automatic bool   `yaml:"automatic" doc:"With nobody asked; otherwise by the approvals again."`
}

type escalation struct {
	After  string   `yaml:"after" need:"true" form:"duration" doc:"Since the request was made; each longer than the one before."`
	Groups []string `yaml:"groups" need:"true" form:"groups" doc:"Groups that are told then. Telling them gives them no say."`
}

type emergency struct {
	Who      []string `yaml:"who" need:"true" form:"groups" doc:"Members of any of these groups, who must fit the rule as well."`
	Duration duration `yaml:"duration" need:"true" doc:"At most the rule's own."`
	Tell     []string `yaml:"tell" form:"groups" doc:"Groups that are told at once, besides all who could have approved."`
	Review   review   `yaml:"review" need:"true" doc:"The sign-off that must follow."`
}

type review struct {
	By     []string `yaml:"by" need:"true" form:"groups" doc:"Members of any of these groups, but never the requester."`
	Within string   `yaml:"within" form:"duration" doc:"24h if silent, at most 720h."`
}

type testCase struct {
	Name      string            `yaml:"name" need:"true" doc:"What the case shows."`
	Groups    []string          `yaml:"groups" form:"any groups" doc:"Of the person who asks."`
	Host      map[string]string `yaml:"host" form:"labels" doc:"The host's labels."`
	Login     string            `yaml:"login" need:"true" form:"login" doc:"What is asked for."`
	At        string            `yaml:"at" form:"time" doc:"When; needed where a schedule decides."`
	Emergency bool              `yaml:"emergency" doc:"Asked for as an emergency."`
	Expect    expectation       `yaml:"expect" need:"true" doc:"Either refused, or the rule that decides."`
}

type expectation struct {
	Refused   bool     `yaml:"refused" doc:"No rule allows it."`
	Rule      string   `yaml:"rule" form:"rule name" doc:"The rule that decides."`
	Automatic *bool    `yaml:"automatic" doc:"Whether nobody is asked."`
	Needs     []string `yaml:"needs" form:"needs" doc:"The approvals, such as '1 from approvers or leads'; those of later stages as 'stage 2: 1 from directors'."`
}

// UnmarshalYAML reads either form, as strictly as all else.
func (a *automatic) UnmarshalYAML(decode func(any) error) error {
	if decode(&a.always) == nil {
		return nil
	}
	a.schedule = new(schedule)
	return decode(a.schedule)
}
