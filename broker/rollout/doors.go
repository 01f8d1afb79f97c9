package rollout

import (
	"context"
	"fmt"

	"sallyport/broker/rollout/machine"
)

// unbar writes down that the batch's hosts are open, until when it closes at the latest.
// The database issues no certificate of an agent for others.
func (c *change) unbar(ctx context.Context, b *machine.Batch) error {
	tag, err := c.tx.Exec(ctx, `UPDATE deployment_hosts SET open_until = $3 WHERE deployment_id = $1 AND host_id = ANY ($2)`,
		c.id, hostsOf(b), b.Opened.Add(c.terms.OpenTime()))
	if err == nil && tag.RowsAffected() != int64(len(b.Hosts)) {
		err = fmt.Errorf("%d of %d hosts are there", tag.RowsAffected(), len(b.Hosts))
	}
	if err != nil {
		return fmt.Errorf("opening hosts: %w", err)
	}
	return nil
}

// seal writes down that hosts are open no more. When that commits, the list of revocations
// has it: hosts take no certificate of the deployment that was issued before, end its
// sessions, and look at themselves anew.
func (c *change) seal(ctx context.Context, hosts []string) error {
	if _, err := c.tx.Exec(ctx, `UPDATE deployment_hosts SET open_until = NULL, sealings = sealings + 1
		WHERE deployment_id = $1 AND host_id = ANY ($2)`, c.id, hosts); err != nil {
		return fmt.Errorf("sealing hosts: %w", err)
	}
	return nil
}
