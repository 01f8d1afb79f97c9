package pack_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/cosignature"
	"sallyport/audit/event"
	"sallyport/evidence/controls"
	"sallyport/evidence/pack"
	"sallyport/internal/history"
)

// source is a history as a writer reads it.
type source struct{ *history.History }

func (s source) Policy(_ context.Context, hash string) ([]byte, error) {
	text, ok := s.Document(hash)
	if !ok {
		return nil, pack.ErrNotKept
	}
	return text, nil
}

// world is a history with people in it.
type world struct {
	*history.History
	erin, liam, sam, olga, omar history.Person

	auditor string
	packs   int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{History: history.New(t, history.Document), auditor: "Ada Auditor"}
	w.erin = w.Person("Erin", "engineers")
	w.liam = w.Person("Liam", "leads")
	w.sam = w.Person("Sam", "security")
	w.olga, w.omar = w.Person("Olga", "ops"), w.Person("Omar", "ops")
	return w
}

// order is for everything that has happened until now.
func (w *world) order() pack.Order {
	w.T.Helper()
	return w.ask(event.PackRequested{From: history.Start, To: w.Now, Controls: []string{}, Seed: "1"})
}

// ask has an auditor ask for a pack. It begins with the log's first entry.
func (w *world) ask(r event.PackRequested) pack.Order {
	w.T.Helper()
	ada := event.Actor{Kind: event.Person, ID: "per-000000000000", Name: w.auditor}
	w.packs++
	r.PackID, r.Zone = fmt.Sprintf("pack-%d", w.packs), "UTC"
	at := w.Now
	w.Add(event.New(at, ada, "192.0.2.9", event.Subject{}, r))
	tree := w.Tree(int64(len(w.Leaves)))
	o := pack.Order{
		ID: r.PackID, Params: pack.Params{Period: pack.NewPeriod(r.From, r.To, time.UTC), Controls: r.Controls, ControlsVersion: controls.Version,
			Seed: r.Seed, SeedBy: pack.SeedByAuditor},
		Tool: "sallyportd test", MadeAt: at, MadeBy: pack.Operator{ID: ada.ID, Name: ada.Name},
		Key: w.Key, Checkpoint: w.Checkpoint(tree.N), Start: w.Checkpoint(0), Trust: []byte("log " + w.Key + "\n"), Dir: w.T.TempDir(),
	}
	if r.Seed == "" {
		o.Params.Seed, o.Params.SeedBy = tree.Hash.String(), pack.SeedByLog
	}
	return o
}

// write writes the order's pack.
func (w *world) write(o pack.Order) []byte {
	w.T.Helper()
	var b bytes.Buffer
	if _, err := pack.Write(context.Background(), &b, o, source{w.History}); err != nil {
		w.T.Fatal(err)
	}
	return b.Bytes()
}

// trust trusts the world's log.
func (w *world) trust() *cosignature.Policy {
	w.T.Helper()
	trust, err := cosignature.ParsePolicy([]byte("log " + w.Key + "\n"))
	if err != nil {
		w.T.Fatal(err)
	}
	return trust
}

func (w *world) verify(zip []byte) pack.Verdict { return w.verifyWith(zip, pack.Options{}) }

func (w *world) verifyWith(zip []byte, o pack.Options) pack.Verdict {
	w.T.Helper()
	if o.Trust == nil {
		o.Trust = w.trust()
	}
	v, err := pack.Verify(context.Background(), bytes.NewReader(zip), int64(len(zip)), o)
	if err != nil {
		w.T.Fatal(err)
	}
	return v
}

// mustVerify wants all checks to pass.
func (w *world) mustVerify(zip []byte) pack.Verdict {
	w.T.Helper()
	v := w.verify(zip)
	if !v.OK {
		w.T.Errorf("it does not verify: %s", failed(v))
	}
	return v
}

// failed are the checks that failed, with why.
func failed(v pack.Verdict) string {
	var out []string
	for _, c := range v.Checks {
		if !c.OK {
			out = append(out, c.Name+": "+c.Detail)
		}
	}
	return strings.Join(out, "\n")
}

// member is one file of an archive.
type member struct {
	name string
	text []byte
}

// unpack reads all files of an archive, in their order.
func unpack(t testing.TB, archive []byte) []member {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	var out []member
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, member{f.Name, text})
	}
	return out
}

func file(t testing.TB, archive []byte, name string) string {
	t.Helper()
	for _, m := range unpack(t, archive) {
		if m.name == name {
			return string(m.text)
		}
	}
	t.Fatalf("there is no %s", name)
	return ""
}

// rows are a table's, with their columns by name.
func rows(t testing.TB, archive []byte, name string) []map[string]string {
	t.Helper()
	all, err := csv.NewReader(strings.NewReader(file(t, archive, name))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]string
	for _, cells := range all[1:] {
		row := map[string]string{}
		for i, name := range all[0] {
			row[name] = cells[i]
		}
		out = append(out, row)
	}
	return out
}

// codes are those of the exceptions of a pack.
func codes(v pack.Verdict) []string { return slices.Sorted(maps.Keys(v.Exceptions)) }

// documentTwo is a second version of the policy.
const documentTwo = history.Document + `
  - name: web
    who: [engineers]
    where: class=web
    logins: [www]
    duration: {max: 1h}
    approvals:
      - slots: [{groups: [leads], count: 1}]
`

// forgedHashes is a source whose hashes somebody has changed.
type forgedHashes struct{ source }

func (f forgedHashes) LeafHashes(ctx context.Context, from, to int64) ([]tlog.Hash, error) {
	hashes, err := f.source.LeafHashes(ctx, from, to)
	if len(hashes) > 3 {
		hashes[3][0] ^= 1
	}
	return hashes, err
}
