package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/api"
	"sallyport/audit/checkpoint"
	"sallyport/audit/cosignature"
	"sallyport/audit/event"
	"sallyport/evidence/pack"
	"sallyport/internal/pgtest"
)

// busy is a broker with some history: of a database, of the web, an approval, a
// denial, certificates.
func busy(t *testing.T, db *pgtest.DB, configure func(*Config)) *kit {
	t.Helper()
	k := newKitOn(t, db, configure)
	k.host(t, "db-1", "database", "dba")
	k.host(t, "web-1", "web", "web")
	denied := k.ask(t, "db-1", "dba")
	get[api.Request](t, k.do(t, "approver", "POST", "/api/v1/requests/"+denied.ID+"/decisions", `{"verdict":"deny"}`), 200)
	k.access(t) // a certificate is there when all before it has its place in the log
	return k
}

// access is an approved request with a certificate.
func (k *kit) access(t *testing.T) api.Request {
	t.Helper()
	r := k.ask(t, "db-1", "dba")
	get[api.Request](t, k.do(t, "approver", "POST", "/api/v1/requests/"+r.ID+"/decisions", `{"verdict":"approve"}`), 200)
	get[api.Certificate](t, k.do(t, "engineer", "POST", "/api/v1/requests/"+r.ID+"/certificates", k.proven(t, r.ID)), 201)
	return r
}

// superuser runs statements as the database's superuser, past all triggers.
func (k *kit) superuser(t *testing.T, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), k.db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	err = pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		// Between two batches of the sequencer, as somebody would who is careful.
		_, err := tx.Exec(t.Context(), `LOCK TABLE audit.head IN ACCESS EXCLUSIVE MODE;
			ALTER TABLE audit.head DISABLE TRIGGER USER; ALTER TABLE audit.entries DISABLE TRIGGER USER; ALTER TABLE audit.hashes DISABLE TRIGGER USER;
			ALTER TABLE audit.event_ids DISABLE TRIGGER USER`)
		for _, sql := range statements {
			if err != nil {
				return err
			}
			var tag pgconn.CommandTag
			if tag, err = tx.Exec(t.Context(), sql); err == nil && tag.RowsAffected() == 0 {
				err = fmt.Errorf("%s changes nothing", sql)
			}
		}
		if err == nil { // or the log could not go on
			_, err = tx.Exec(t.Context(), "ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER remember_ids")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// download is a pack's zip.
func (k *kit) download(t *testing.T, p api.Pack) []byte {
	t.Helper()
	got := k.do(t, "auditor", "GET", "/api/v1/audit/packs/"+p.ID+"/download", "")
	if got.StatusCode != 200 {
		t.Fatalf("the download is %s\n%s", got.Status, got.body)
	}
	return got.body
}

// verdict verifies a pack as an auditor with the log's key does, and a checkpoint
// if there is one from last time. It returns the checks that fail.
func (k *kit) verdict(t *testing.T, zip []byte, previous string) (pack.Verdict, string) {
	t.Helper()
	trust, err := cosignature.ParsePolicy([]byte("log " + k.cfg.Keys.LogVerifier + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	o := pack.Options{Trust: trust}
	if previous != "" {
		o.Previous = []byte(previous)
	}
	v, err := pack.Verify(t.Context(), bytes.NewReader(zip), int64(len(zip)), o)
	if err != nil {
		t.Fatal(err)
	}
	var failed []string
	for _, c := range v.Checks {
		if !c.OK {
			failed = append(failed, c.Name+": "+c.Detail)
		}
	}
	return v, strings.Join(failed, "\n")
}

func (k *kit) checkpoint(t *testing.T) string {
	t.Helper()
	text, err := k.log.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// newest is the index of the newest entry of the type.
func (k *kit) newest(t *testing.T, eventType string) (index int64) {
	t.Helper()
	if err := k.db.Pool.QueryRow(t.Context(), "SELECT max(index) FROM audit.entries WHERE type = $1", eventType).Scan(&index); err != nil {
		t.Fatal(err)
	}
	return index
}

// What a superuser does to entries: the pack is made, says what is missing, and no
// verifier takes it for whole.
func TestAttackSuperuserOnEntries(t *testing.T) {
	t.Parallel()
	const leaf = `UPDATE audit.entries SET leaf = l, leaf_hash = sha256('\x00'::bytea || l) FROM (
		SELECT convert_to(replace(convert_from(leaf, 'UTF8'), '"verdict":"approve"', '"verdict":"deny"'), 'UTF8') AS l
		FROM audit.entries WHERE index = %[1]d) AS new WHERE index = %[1]d`
	for name, attack := range map[string]struct {
		sql     []string
		missing int64
	}{
		"edits a decision": {[]string{leaf}, 1},
		"deletes an event": {[]string{"DELETE FROM audit.entries WHERE index = %[1]d"}, 1},
		"reorders events": {[]string{"UPDATE audit.entries SET index = 9999 WHERE index = %[1]d", "UPDATE audit.entries SET index = %[1]d WHERE index = %[1]d - 1",
			"UPDATE audit.entries SET index = %[1]d - 1 WHERE index = 9999"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := busy(t, pgtest.New(t), nil)
			at := k.newest(t, "request.decided")
			for i := range attack.sql {
				attack.sql[i] = fmt.Sprintf(attack.sql[i], at)
			}
			k.superuser(t, attack.sql...)
			p := k.makePack(t, always)
			if p.State != api.PackReady || p.Missing != attack.missing || p.Exceptions == 0 {
				t.Fatalf("the pack is %+v", p)
			}
			v, failed := k.verdict(t, k.download(t, p), "")
			if !strings.HasPrefix(failed, "entries: ") || strings.Contains(failed, "\n") || v.Exceptions["log-gap"] == 0 {
				t.Errorf("%v\n%s", v.Exceptions, failed)
			}
		})
	}
}

// Whoever edits the tree's hashes as well gets no pack at all.
func TestAttackSuperuserOnTheTree(t *testing.T) {
	t.Parallel()
	k := busy(t, pgtest.New(t), nil)
	at := k.newest(t, "request.decided")
	k.superuser(t, fmt.Sprintf("UPDATE audit.hashes SET hash = sha256('x') WHERE index = %d", tlog.StoredHashIndex(0, at)))
	p := k.makePack(t, always)
	if p.State != api.PackFailed || !strings.Contains(p.Problem, "stored hashes") {
		t.Fatalf("the pack is %+v", p)
	}
	var found api.Page[api.Event]
	for deadline := time.Now().Add(30 * time.Second); len(found.Items) == 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		found = get[api.Page[api.Event]](t, k.do(t, "auditor", "GET", "/api/v1/audit/events?type=pack.failed", ""), 200) // once it has its place
	}
	if len(found.Items) != 1 || found.Items[0].Data["code"] != "log-damaged" {
		t.Errorf("the log says %+v", found.Items)
	}
}

// truncate cuts the log's tail off, back to an older head that was genuine once.
func (k *kit) truncate(t *testing.T, head string, size int64) {
	t.Helper()
	hash := strings.Split(head, "\n")[2]
	k.superuser(t, fmt.Sprintf("DELETE FROM audit.entries WHERE index >= %d", size),
		fmt.Sprintf("DELETE FROM audit.event_ids WHERE index >= %d", size),
		fmt.Sprintf("DELETE FROM audit.hashes WHERE index >= %d", tlog.StoredHashCount(size)),
		fmt.Sprintf("UPDATE audit.head SET size = %d, root = decode('%s', 'base64'), checkpoint = '%s'", size, hash, head))
}

func sizeOf(t *testing.T, head string) (n int64) {
	t.Helper()
	if _, err := fmt.Sscan(strings.Split(head, "\n")[1], &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A log whose tail was cut off goes on otherwise. The broker that knew better gives
// out nothing any more; one that remembers nothing takes it for the truth, and the
// auditor's own checkpoint says what it is.
func TestAttackTruncatedTail(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	k := busy(t, db, nil)
	older := k.checkpoint(t)
	k.access(t)
	kept := k.checkpoint(t) // the auditor's
	k.truncate(t, older, sizeOf(t, older))
	k.refusesTheLog(t)
	if err := k.Close(); err != nil && !strings.Contains(err.Error(), "behind") {
		t.Fatal(err)
	}

	forgetful := newKitOn(t, db, func(c *Config) { c.Keys = k.cfg.Keys })
	p := forgetful.makePack(t, always)
	zip := forgetful.download(t, p)
	if _, failed := forgetful.verdict(t, zip, ""); failed != "" {
		t.Fatalf("without a checkpoint of one's own, nothing is wrong with it, and yet:\n%s", failed)
	}
	if _, failed := forgetful.verdict(t, zip, kept); !strings.HasPrefix(failed, "previous: ") {
		t.Errorf("with one:\n%s", failed)
	}
	for range 3 {
		forgetful.access(t)
	}
	zip = forgetful.download(t, forgetful.makePack(t, always))
	if _, failed := forgetful.verdict(t, zip, kept); !strings.HasPrefix(failed, "previous: FORK") {
		t.Errorf("longer than before:\n%s", failed)
	}
}

// A head that is not the tree's, whoever signed it, ends everything.
func TestAttackReplacedHead(t *testing.T) {
	t.Parallel()
	for name, stolen := range map[string]bool{"signed by another key": false, "signed by the stolen key": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := busy(t, pgtest.New(t), nil)
			key, _, err := note.GenerateKey(nil, "sallyport.example.com/log")
			if err != nil {
				t.Fatal(err)
			}
			if stolen {
				key = k.cfg.Keys.LogSigner
			}
			signer, err := note.NewSigner(key)
			if err != nil {
				t.Fatal(err)
			}
			forged := signed(t, sizeOf(t, k.checkpoint(t)), tlog.RecordHash([]byte("x")), signer)
			k.superuser(t, fmt.Sprintf("UPDATE audit.head SET checkpoint = '%s', root = decode('%s', 'base64')", forged, strings.Split(string(forged), "\n")[2]))
			k.refusesTheLog(t)
		})
	}
}

// A checkpoint beside the true root is not what a running broker goes by: it knows
// its own.
func TestAttackReplacedCheckpoint(t *testing.T) {
	t.Parallel()
	k := busy(t, pgtest.New(t), nil)
	kept := k.checkpoint(t)
	older, err := k.log.CheckpointAt(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	k.superuser(t, fmt.Sprintf("UPDATE audit.head SET checkpoint = '%s'", older))
	if _, failed := k.verdict(t, k.download(t, k.makePack(t, always)), kept); failed != "" {
		t.Error(failed)
	}
}

// refusesTheLog checks that a broker that knows better than its database gives out
// nothing.
func (k *kit) refusesTheLog(t *testing.T) {
	t.Helper()
	if got := k.do(t, "", "GET", "/log/checkpoint", ""); got.StatusCode != 503 {
		t.Errorf("it gives out a checkpoint: %s", got.Status)
	}
	if p := problemOf(t, k.do(t, "auditor", "POST", "/api/v1/audit/packs", always), 503); p.Code != "log-behind" && p.Code != "log-key" {
		t.Errorf("it says %+v", p)
	}
}

func signed(t *testing.T, size int64, root tlog.Hash, signer note.Signer) []byte {
	t.Helper()
	text, err := checkpoint.Sign(tlog.Tree{N: size, Hash: root}, signer)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A superuser has the broker's own sequencer take a certificate that nobody allowed:
// a copy of a true one, for the same request, long after. It is in the log then, and
// an exception in every pack.
func TestAttackForgedCertificateInTheLog(t *testing.T) {
	t.Parallel()
	k := busy(t, pgtest.New(t), nil)
	r := k.ask(t, "db-1", "dba") // that nobody approves
	var leaf []byte
	if err := k.db.Pool.QueryRow(t.Context(), "SELECT leaf FROM audit.entries WHERE type = 'certificate.issued' ORDER BY index DESC LIMIT 1").Scan(&leaf); err != nil {
		t.Fatal(err)
	}
	e, err := event.Decode(leaf)
	if err != nil {
		t.Fatal(err)
	}
	e.ID, e.Subject.RequestID = uuid.New(), r.ID
	k.inject(t, e)
	p := k.makePack(t, always)
	v, failed := k.verdict(t, k.download(t, p), "")
	if failed != "" || p.Exceptions != 1 || v.Exceptions["certificate-outside-grant"] != 1 {
		t.Errorf("%v\n%s", v.Exceptions, failed)
	}
}

// With a forged approval and a forged grant, too, it is no more allowed: the approver
// that the statement names is no other than the requester.
func TestAttackForgedApprovalInTheLog(t *testing.T) {
	t.Parallel()
	k := busy(t, pgtest.New(t), nil)
	r := k.ask(t, "db-1", "dba")
	at := k.cfg.Clock.Now()
	k.inject(t, k.people["engineer"].Event(at, event.Subject{RequestID: r.ID, PersonID: r.Requester.ID, HostID: r.HostID},
		event.GrantStarted{TermsHash: r.TermsHash, Decisions: []string{}, StartsAt: at, EndsAt: at.Add(30 * 60e9)}))
	v, failed := k.verdict(t, k.download(t, k.makePack(t, always)), "")
	if failed != "" || v.Exceptions["grant-without-quorum"] != 1 || v.Found() != 1 {
		t.Errorf("%v\n%s", v.Exceptions, failed)
	}
}

// inject has the sequencer take an event that no room wrote, and waits until it has.
func (k *kit) inject(t *testing.T, e event.Event) {
	t.Helper()
	leaf, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(append([]byte{0}, leaf...))
	conn, err := pgx.Connect(t.Context(), k.db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	kind, _ := e.Data.EventType()
	_, err = conn.Exec(t.Context(), "INSERT INTO audit.pending (event_id, type, time, leaf, leaf_hash, data) VALUES ($1, $2, $3, $4, $5, $6)",
		e.ID, kind, e.Time, leaf, hash[:], leaf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.log.Wait(t.Context(), e.ID); err != nil {
		t.Fatal(err)
	}
}

// A superuser changes what a pack is to be of, while it waits. The log says what was
// asked for.
func TestAttackAnotherPeriodInTheDatabase(t *testing.T) {
	t.Parallel()
	k := busy(t, pgtest.New(t), nil)
	conn, err := pgx.Connect(t.Context(), k.db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	// Whichever pack is asked for gets another seed, before anybody sees it.
	_, err = conn.Exec(t.Context(), `CREATE FUNCTION cheat() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.seed := 'suits-me'; RETURN NEW; END $$;
		CREATE TRIGGER cheat BEFORE INSERT ON evidence_packs FOR EACH ROW EXECUTE FUNCTION cheat()`)
	if err != nil {
		t.Fatal(err)
	}
	if p := k.makePack(t, always); p.State != api.PackFailed || !strings.Contains(p.Problem, "does not say that somebody asked for this pack") {
		t.Errorf("the pack is %+v", p)
	}
}

// A pack's file that was changed in the broker's folder is what the auditor gets, and
// does not verify.
func TestAttackEditedFileInTheFolder(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	k := busy(t, pgtest.New(t), func(c *Config) { c.StateFile = filepath.Join(state, "checkpoint") })
	p := k.makePack(t, always)
	path := filepath.Join(state, "packs", p.ID+".zip")
	flipByte(t, path)
	if _, failed := k.verdict(t, k.download(t, p), ""); failed == "" {
		t.Error("it verifies")
	}
}

// flipByte changes a byte in the middle of a file.
func flipByte(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
