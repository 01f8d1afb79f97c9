package api

// ExplainInput asks why somebody can or cannot ask for a login on a host.
type ExplainInput struct {
	Host      string `json:"host" minLength:"1" maxLength:"63" doc:"Name or id"`
	Login     string `json:"login" minLength:"1" maxLength:"32"`
	Duration  string `json:"duration,omitempty" maxLength:"32" example:"1h" doc:"The rule's default if empty"`
	Emergency bool   `json:"emergency,omitempty" doc:"As an emergency"`
	Person    string `json:"person,omitempty" maxLength:"255" doc:"Id or address of somebody else (operators and auditors); oneself if empty"`
}

// Explanation is what would become of an ask made now, and why. It comes from the
// code that decides.
type Explanation struct {
	Person    Person        `json:"person"`
	Host      string        `json:"host"`
	Login     string        `json:"login"`
	Allowed   bool          `json:"allowed" doc:"The ask would be taken, given the reason and ticket that the rule wants"`
	Code      string        `json:"code,omitempty" doc:"Of the refusal"`
	Detail    string        `json:"detail,omitempty" doc:"Why it would be refused"`
	Hint      string        `json:"hint,omitempty"`
	Rule      *HostRule     `json:"rule,omitempty" doc:"The rule that decides, if one fits"`
	Automatic bool          `json:"automatic" doc:"Would be approved at once"`
	Approvers []Slot        `json:"approvers,omitempty" doc:"Who would have to approve"`
	Rules     []RuleVerdict `json:"rules" doc:"The rule that decides, then the nearest misses; for oneself, only those for one's own groups"`
	More      int           `json:"more,omitempty" doc:"How many further rules do not fit"`
	Policy    PolicyRef     `json:"policy"`
}

// RuleVerdict says of one rule whether it fits an ask.
type RuleVerdict struct {
	Rule    string           `json:"rule"`
	Number  int              `json:"number" doc:"Place in the policy, from 1"`
	Fits    bool             `json:"fits"`
	Decides bool             `json:"decides" doc:"It is the first that fits"`
	Unmet   []UnmetCondition `json:"unmet" doc:"Why it does not fit"`
}

// UnmetCondition is a condition of a rule that an ask does not meet.
type UnmetCondition struct {
	Condition string `json:"condition" enum:"who,where,logins,host" doc:"A key of the rule, or host: the host has no such login"`
	Detail    string `json:"detail"`
}

// HostReach says who can reach one login on one host: by which rules members of
// which groups, and who of them has signed in so far.
type HostReach struct {
	HostID string            `json:"host_id"`
	Host   string            `json:"host"`
	Login  string            `json:"login"`
	Rules  []ReachRule       `json:"rules"`
	Count  int               `json:"count" doc:"How many people, of those who have signed in"`
	People Page[ReachPerson] `json:"people" doc:"By name, with their groups at the last sign-in"`
	Policy PolicyRef         `json:"policy"`
}

// ReachRule is a rule that lets members of groups ask.
type ReachRule struct {
	Rule      string   `json:"rule"`
	Groups    []string `json:"groups" doc:"For whose members it decides"`
	Automatic bool     `json:"automatic" doc:"Approved at once, if asked now"`
	Approvers []Slot   `json:"approvers,omitempty"`
}

// ReachPerson is somebody who can ask, and the rule that would decide.
type ReachPerson struct {
	Person    Person `json:"person"`
	Rule      string `json:"rule"`
	Automatic bool   `json:"automatic"`
	Emergency bool   `json:"emergency" doc:"May start before anybody has approved"`
}

// PersonReach says what one person can reach.
type PersonReach struct {
	Person Person          `json:"person"`
	Hosts  Page[ReachHost] `json:"hosts" doc:"By name; only hosts with a login that the person can ask for"`
	Policy PolicyRef       `json:"policy"`
}

// ReachHost is a host with the logins that somebody can ask for.
type ReachHost struct {
	HostID string            `json:"host_id"`
	Host   string            `json:"host"`
	Labels map[string]string `json:"labels"`
	Logins []ReachLogin      `json:"logins"`
}

// ReachLogin is a login that somebody can ask for, and the rule that would decide.
type ReachLogin struct {
	Login       string `json:"login"`
	Rule        string `json:"rule"`
	MaxDuration string `json:"max_duration" example:"2h"`
	Automatic   bool   `json:"automatic"`
	Emergency   bool   `json:"emergency" doc:"May start before anybody has approved"`
}
