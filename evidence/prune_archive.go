package evidence

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"sallyport/audit/checkpoint"
	"sallyport/audit/cosignature"
	"sallyport/evidence/controls"
	"sallyport/evidence/pack"
)

// archived is an archive that was verified.
type archived struct {
	sha256 string
	bytes  int64
}

var unsafe = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// archiveName is a file's: of a log, with the indexes of its first and its last entry.
func archiveName(origin string, first, before int64) string {
	return fmt.Sprintf("%s-%d-%d.zip", unsafe.ReplaceAllString(origin, "-"), first, before-1)
}

// archive makes sure that the entries of the plan are in a verified archive. One that a
// stopped run left behind is used again. If the log names an archive that is not there,
// another one is made, and recorded anew: nothing was removed yet.
func (p *Pruner) archive(ctx context.Context, plan *Plan) (archived, error) {
	if plan.Recorded != nil {
		plan.Archive = plan.Recorded.Archive
	}
	path := filepath.Join(p.cfg.Dir, filepath.Base(plan.Archive))
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if plan.Recorded != nil {
			p.cfg.Progress("%s, which entry %d names, is not in %s; another one is made", plan.Archive, plan.Recorded.Index, p.cfg.Dir)
			plan.previous, plan.Recorded = int64(plan.Recorded.Previous), nil
			if err := p.span(ctx, plan); err != nil {
				return archived{}, err
			}
		}
		err = p.export(ctx, *plan, path)
	}
	if err != nil {
		return archived{}, err
	}
	if err := p.step("archived"); err != nil {
		return archived{}, err
	}
	return p.verify(ctx, *plan, path)
}

// export writes the archive, so that after a crash it is there as a whole or not at all.
func (p *Pruner) export(ctx context.Context, plan Plan, path string) error {
	head, err := p.cfg.Log.CheckpointAt(ctx, plan.until)
	if err != nil {
		return err
	}
	start, err := p.cfg.Log.CheckpointAt(ctx, plan.First)
	if err != nil {
		return err
	}
	tree, err := checkpoint.Open(head, p.verifier)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path+partial, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	last := time.Now()
	to := bufio.NewWriterSize(f, 1<<20)
	summary, err := pack.Write(ctx, to, pack.Order{
		ID: pack.ArchiveID(plan.First, plan.Before),
		Params: pack.Params{Period: pack.ArchivePeriod(plan.Since, plan.Latest), ControlsVersion: controls.Version,
			Seed: tree.Hash.String(), SeedBy: pack.SeedByLog},
		Tool: "sallyportd " + p.cfg.Version, MadeAt: p.cfg.Clock.Now(), MadeBy: pack.Operator{Name: p.cfg.By},
		Key: p.cfg.Log.VerifierKey(), First: plan.First, Checkpoint: head, Start: start,
		Trust: []byte("log " + p.cfg.Log.VerifierKey() + "\n"), Dir: p.cfg.Dir,
		Progress: func(done, total int64) {
			if now := time.Now(); now.Sub(last) > 5*time.Second {
				last = now
				p.cfg.Progress("archiving: %d of %d entries", done, total)
			}
		},
	}, source{p.cfg.Log, p.cfg.Needs})
	if errors.Is(err, pack.ErrTree) {
		return ErrLogDamaged.With("the log's tree hashes are not those of its checkpoint").Because(err)
	}
	if err != nil {
		return fmt.Errorf("archiving: %w", err)
	}
	if summary.Missing > 0 {
		return ErrLogDamaged.With("%d of the entries are not those of the log's tree", summary.Missing)
	}
	if err := errors.Join(to.Flush(), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("archiving: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("archiving: %w", err)
	}
	p.cfg.Progress("archived entries %d to %d as %s", plan.First, plan.Before-1, path)
	return syncDir(p.cfg.Dir)
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// verify reads the archive from the disk, as an auditor would, and holds it against the
// plan, the log in the database, and what the log says of it.
func (p *Pruner) verify(ctx context.Context, plan Plan, path string) (archived, error) {
	f, err := os.Open(path)
	if err != nil {
		return archived{}, err
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return archived{}, fmt.Errorf("reading the archive: %w", err)
	}
	out := archived{sha256: hex.EncodeToString(sum.Sum(nil)), bytes: size}
	if r := plan.Recorded; r != nil && (r.ArchiveSHA256 != out.sha256 || int64(r.ArchiveBytes) != size) {
		return out, ErrArchive.With("%s is not the archive that entry %d names: its SHA-256 is %s, not %s", path, r.Index, out.sha256, r.ArchiveSHA256)
	}
	trust, err := cosignature.ParsePolicy([]byte("log " + p.cfg.Log.VerifierKey() + "\n"))
	if err != nil {
		return out, err
	}
	v, err := pack.Verify(ctx, f, size, pack.Options{Trust: trust})
	if err != nil {
		return out, fmt.Errorf("verifying the archive: %w", err)
	}
	for _, c := range v.Checks {
		if !c.OK {
			return out, ErrArchive.With("%s does not verify: %s: %s", path, c.Name, c.Detail)
		}
	}
	l := v.Manifest.Log
	made, err := p.cfg.Log.CheckpointAt(ctx, l.End)
	if err != nil {
		return out, err
	}
	tree, err := checkpoint.Open(made, p.verifier)
	switch {
	case err != nil:
		return out, err
	case l.First > plan.First || l.End < plan.Before:
		return out, ErrArchive.With("%s has entries %d to %d, and those from %d to %d would go", path, l.First, l.End-1, plan.First, plan.Before-1)
	case tree.Hash.String() != l.Root:
		return out, ErrArchive.With("%s is of another log with the same key", path)
	}
	p.cfg.Progress("verified %s: %d bytes, SHA-256 %s", path, size, out.sha256)
	return out, nil
}
