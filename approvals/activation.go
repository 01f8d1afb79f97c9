package approvals

import (
	"bytes"
	"fmt"

	"github.com/google/uuid"

	"sallyport/approvals/policy"
)

// version is a row of policy_activations with what belongs to it.
type version struct {
	VersionEvidence
	eventID    uuid.UUID
	activation Activation // once it is checked
}

func (v *version) check(logKey string) (err error) {
	v.activation, err = v.Check(logKey)
	return err
}

// parse is the version's policy. One that cannot be read, perhaps as only a newer
// program can, decides nothing, and lets no older one decide.
func (v *version) parse() (*policy.Policy, error) {
	p, err := policy.Parse(bytes.Clone(v.Document))
	if err != nil {
		return nil, fmt.Errorf("reading version %d of the policy: %w", v.Version, err)
	}
	p.Version = v.Version
	return p, nil
}
