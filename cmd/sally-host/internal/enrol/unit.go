package enrol

import (
	"context"

	"sallyport/cmd/sally-host/internal/place"
)

// Unit is systemd's for the daemon, which renews, hears of revocations, ends sessions
// and reports.
const (
	UnitFile = "/etc/systemd/system/sally-host.service"
	Unit     = `# Written by sally-host enroll, and again whenever it runs; sally-host unenroll takes it away.
[Unit]
Description=Sallyport on this host: revocations, sessions, posture
Documentation=man:sshd(8)
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=` + place.Program + ` daemon
Restart=always
RestartSec=2s
UMask=0077
# Sessions have cgroups of their own, and outlive a restart.
KillMode=process
NoNewPrivileges=yes
ProtectClock=yes
ProtectHome=read-only
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
`
)

// startDaemon starts the daemon and has it started with the host. Where something else
// than systemd runs the host, it says what to start.
func (e *Enroller) startDaemon(ctx context.Context, c *changes) error {
	if !hasSystemd() {
		e.say("note         systemd does not run this host. Have your own service manager keep this running:\n               %s daemon\n             Without it, revocations do not arrive, and after a while no new certificate is taken", place.Program)
		return nil
	}
	if !exists(UnitFile) {
		c.undos = append(c.undos, func() error { return systemctl(context.WithoutCancel(ctx), "daemon-reload") })
	}
	if err := c.write(UnitFile, []byte(Unit), 0o644); err != nil {
		return err
	}
	if err := systemctl(ctx, "daemon-reload"); err != nil {
		return err
	}
	if systemctl(ctx, "is-enabled", "--quiet", "sally-host.service") != nil {
		c.undos = append(c.undos, func() error {
			return systemctl(context.WithoutCancel(ctx), "disable", "--now", "sally-host.service")
		})
	}
	if err := systemctl(ctx, "enable", "sally-host.service"); err != nil {
		return err
	}
	return systemctl(ctx, "restart", "sally-host.service")
}
