package enrol

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Unenrol takes away what enrolment wrote, so that the ways in are those of before. What
// others have changed since stays as it is. The broker is not told: an operator removes
// the host there.
func (e *Enroller) Unenrol(ctx context.Context) (err error) {
	before, err := e.Server.Effective(ctx, e.Server.Config, "root", "192.0.2.1")
	if err != nil {
		return err
	}
	c := &changes{backup: e.Place.State() + "/backup/" + e.Now().UTC().Format("20060102T150405Z")}
	defer func() {
		if err == nil {
			return
		}
		err = errors.Join(err, c.undo())
		err = fmt.Errorf("%w\nThis host is enrolled still", err)
	}()
	for _, name := range append(e.configs(), PAM) {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := c.write(name, unmark(text), modeOf(name)); err != nil {
			return err
		}
	}
	if err := c.remove(DropIn); err != nil {
		return err
	}
	if err := e.Server.Test(ctx, e.Server.Config); err != nil {
		return err
	}
	if err := e.Server.Reload(ctx, before); err != nil {
		return err
	}
	// From here on the host is its own again; the rest is tidying.
	if exists(UnitFile) {
		if err := systemctl(ctx, "disable", "--now", "sally-host.service"); err != nil {
			e.say("note         %v", err)
		}
		if err := os.Remove(UnitFile); err != nil {
			e.say("note         %v", err)
		}
	}
	for _, name := range []string{e.Place.Folder(), e.Place.Revocations(), e.Place.Closed(), e.Place.Spool(), e.pendingFile()} {
		if err := os.RemoveAll(name); err != nil {
			e.say("note         %v", err)
		}
	}
	after, err2 := e.Server.Effective(ctx, e.Server.Config, "root", "192.0.2.1")
	if err2 == nil {
		e.say("unenrolled   authorized keys: %s; passwords: %s. What was changed is in %s/backup", after.one("authorizedkeysfile"), after.one("passwordauthentication"), e.Place.State())
	}
	return nil
}

func modeOf(name string) os.FileMode {
	if info, err := os.Stat(name); err == nil {
		return info.Mode().Perm()
	}
	return 0o644
}
