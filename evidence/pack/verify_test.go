package pack_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/audit/cosignature"
	"sallyport/audit/event"
	"sallyport/evidence/controls"
	"sallyport/evidence/pack"
	"sallyport/evidence/populations"
	"sallyport/internal/history"
)

// A log of several tiles, with a period inside of it, verified against checkpoints of
// any size that an auditor may have kept.
func TestPackOfManyTiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var from time.Time
	var start int64
	for len(w.Leaves) < 1500 {
		w.Access(w.erin, w.liam, "databases", "db-1")
		if from.IsZero() && len(w.Leaves) > 700 {
			w.Now = w.Now.Add(time.Hour)
			from, start = w.Now, int64(len(w.Leaves))
		}
	}
	to := w.Now
	w.Now = w.Now.Add(time.Hour)
	for range 5 {
		w.Broker(event.KeysLoaded{})
	}
	o := w.ask(event.PackRequested{From: from, To: to, Controls: []string{}, Seed: "1"})
	o.Start = w.Checkpoint(start)
	archive := w.write(o)
	v := w.mustVerify(archive)
	if v.Found() > 0 || v.Manifest.Log.Start != start {
		t.Errorf("%v, %+v", v.Exceptions, v.Manifest.Log)
	}
	certificates := rows(t, archive, "populations/certificates.csv")
	if len(certificates) == 0 || certificates[0]["index"] == "" {
		t.Fatalf("certificates: %v", certificates)
	}
	for _, row := range certificates {
		if at, err := time.Parse(time.RFC3339Nano, row["time"]); err != nil || at.Before(from) || !at.Before(to) {
			t.Errorf("%s is not in the period", row["time"])
		}
	}
	for _, size := range []int64{0, 1, 255, 256, 257, 511, 512, 700, start, 1024, 1279, 1280, int64(len(w.Leaves)) - 1, int64(len(w.Leaves))} {
		if v := w.verifyWith(archive, pack.Options{Previous: w.Checkpoint(size)}); !v.OK {
			t.Errorf("previous of %d: %s", size, failed(v))
		}
	}
	forged := change(t, archive, "log/tile/entries/002", flip)
	w.refused(forged, pack.Options{}, "entries", "is not the one in the tree")
}

// Entries that were pruned are no gap if the log says so; what rests on them is said
// to be unknown.
func TestPackOfAPrunedLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for len(w.Leaves) < 600 {
		w.Access(w.erin, w.liam, "databases", "db-1")
	}
	running := w.Ask(w.erin, w.Terms(w.erin, "databases", "db-2"))
	first := int64(len(w.Leaves)) // in the middle of a tile
	w.Prune(first)
	running.Decide(w.liam, "approve")
	w.Access(w.erin, w.liam, "databases", "db-1")
	o := w.order()
	o.First = first
	w.Seal()
	for i := range first {
		w.Leaves[i] = nil
	}
	v := w.mustVerify(w.write(o))
	if fmt.Sprint(codes(v)) != "[before-pack pruned-in-period]" {
		t.Errorf("exceptions %v", v.Exceptions)
	}
	if v := w.verifyWith(w.write(o), pack.Options{Previous: w.Checkpoint(300)}); !v.OK {
		t.Errorf("a checkpoint from before: %s", failed(v))
	}
}

// The same order gives the same manifest, and so the same files.
func TestPacksAreReproducible(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	o := w.order()
	one, two := unpack(t, w.write(o)), unpack(t, w.write(o))
	for i := range one {
		if one[i].name != two[i].name || !bytes.Equal(one[i].text, two[i].text) {
			t.Errorf("%s differs", one[i].name)
		}
	}
}

// Samples can be chosen again with nothing but SHA-256.
func TestSamplesAreReproducible(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 100 {
		w.Access(w.erin, w.liam, "databases", "db-1")
	}
	archive := w.write(w.ask(event.PackRequested{From: history.Start, To: w.Now, Controls: []string{}, Seed: "4711"}))
	hashes := map[string]string{} // by index
	var all []string
	for _, row := range rows(t, archive, "populations/certificates.csv") {
		sum := sha256.Sum256([]byte("4711\ncertificates\n" + row["index"]))
		h := fmt.Sprintf("%x", sum)
		hashes[row["index"]], all = h, append(all, h)
	}
	n := 0
	for _, s := range rows(t, archive, "samples.csv") {
		if s["list"] != "certificates" {
			continue
		}
		n++
		smaller := 0
		for _, h := range all {
			if h < hashes[s["index"]] {
				smaller++
			}
		}
		if s["sha256"] != hashes[s["index"]] || smaller >= pack.MaxSamples || s["seed"] != "4711" {
			t.Errorf("%v was not to be chosen", s)
		}
		if file(t, archive, "proofs/"+s["index"]+".tlog-proof") == "" {
			t.Errorf("sample %s has no receipt", s["index"])
		}
	}
	if n != pack.MaxSamples {
		t.Errorf("%d samples", n)
	}
}

// The lists are the whole log of the period, once.
func TestEveryEventIsOneRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	w.Leaf([]byte(`{"id":"x","type":"colour.changed","version":1,"time":"` + w.Now.Format(time.RFC3339) + `","actor":{"kind":"broker"},"subject":{},"data":{}}`))
	w.Session(w.Host("db-1"), `"login":"dba"`)
	archive := w.write(w.order())
	w.mustVerify(archive)
	seen := map[string]string{}
	for _, p := range populations.All {
		for _, row := range rows(t, archive, "populations/"+p.Name+".csv") {
			if in, twice := seen[row["index"]]; twice {
				t.Errorf("entry %s is in %s and %s", row["index"], in, p.Name)
			}
			seen[row["index"]] = p.Name
		}
	}
	if len(seen) != len(w.Leaves)-1 || seen[fmt.Sprint(len(w.Leaves)-3)] != "other" { // all but the asking for the pack
		t.Errorf("%d rows of %d events", len(seen), len(w.Leaves)-1)
	}
	for _, row := range rows(t, archive, "reconciliation.csv") {
		if row["event"] == "(all)" && row["difference"] != "0" {
			t.Errorf("%v", row)
		}
		if row["event"] == "(all)" && row["rows_in_list"] == "0" && row["statement"] == "" {
			t.Errorf("%s is empty without a word", row["list"])
		}
	}
}

func TestCriteriaNarrowThePack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	archive := w.write(w.ask(event.PackRequested{From: history.Start, To: w.Now, Controls: []string{"CC7.3"}, Seed: "1"}))
	w.mustVerify(archive)
	var names []string
	for _, m := range unpack(t, archive) {
		if strings.HasPrefix(m.name, "populations/") {
			names = append(names, m.name)
		}
	}
	if fmt.Sprint(names) != "[populations/emergencies.csv populations/alerts.csv]" {
		t.Errorf("lists %v", names)
	}
	if !strings.Contains(file(t, archive, "reconciliation.csv"), "left out: it serves none of the criteria asked for") {
		t.Error("nothing says that lists were left out")
	}
	o := w.order()
	o.Params.Controls = []string{"CC9.9"}
	if _, err := pack.Write(t.Context(), io.Discard, o, source{w.History}); err == nil {
		t.Error("there is evidence for a criterion that there is not")
	}
}

// A period whose end the log has not seen could miss its last entries.
func TestThePeriodMustBeOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	o := w.ask(event.PackRequested{From: history.Start, To: w.Now.Add(time.Hour), Controls: []string{}, Seed: "1"})
	if _, err := pack.Write(t.Context(), io.Discard, o, source{w.History}); err == nil || !strings.Contains(err.Error(), "the last entry is of") {
		t.Errorf("it says %v", err)
	}
}

// A database that cannot be read is not one that lacks something.
func TestASourceThatFailsIsNoException(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	down := errors.New("connection refused")
	if _, err := pack.Write(t.Context(), io.Discard, w.order(), failing{source{w.History}, down}); !errors.Is(err, down) {
		t.Errorf("it says %v", err)
	}
}

type failing struct {
	source
	err error
}

func (f failing) Policy(context.Context, string) ([]byte, error) { return nil, f.err }

// The page stands by itself, and hostile text stays text.
func TestThePageStandsByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.erin.Name = `<script>alert(1)</script>`
	w.Emergency(w.erin, "databases", "db-1")
	w.Now = w.Now.Add(48 * time.Hour)
	w.Broker(event.KeysLoaded{})
	w.auditor = `<img src=x onerror=alert(1)>`
	archive := w.write(w.order())
	v := w.mustVerify(archive)
	page := file(t, archive, "README.html")
	if got := regexp.MustCompile(`(?i)<script|<img|<link|<[a-z][^>]*\s(src|href)=|url\(|@import`).FindString(page); got != "" {
		t.Errorf("the page has %q", got)
	}
	for _, want := range []string{"emergency-unreviewed", "relative to the log", "sally audit verify", "CC7.3", history.Start.Format(time.DateOnly), "nobody decided on a request"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if v.Exceptions["emergency-unreviewed"] != 1 {
		t.Errorf("exceptions %v", v.Exceptions)
	}
}

// Every part of the workbook is well-formed, and every cell text.
func TestWorkbook(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	terms := w.Terms(w.erin, "databases", "db-1")
	terms.Reason = "odd \u0001\ufffe <&> text" + strings.Repeat("x", 20000)
	w.Ask(w.erin, terms)
	w.ordinary()
	parts := unpack(t, []byte(file(t, w.write(w.order()), "evidence.xlsx")))
	for _, p := range parts {
		for d := xml.NewDecoder(bytes.NewReader(p.text)); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", p.name, err)
			}
			if cell, ok := token.(xml.StartElement); ok && cell.Name.Local == "c" && (len(cell.Attr) != 1 || cell.Attr[0].Value != "inlineStr") {
				t.Errorf("%s has a cell %v", p.name, cell.Attr)
			}
		}
	}
	if len(parts) != 4+4+len(populations.All)+len(populations.Registers) {
		t.Errorf("%d parts", len(parts))
	}
}

// witness cosigns as c2sp.org/tlog-cosignature says.
type witness struct {
	name, vkey string
	key        ed25519.PrivateKey
}

func newWitness(t testing.TB, name string) witness {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	key := append([]byte{4}, public...)
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	return witness{name, fmt.Sprintf("%s+%08x+%s", name, binary.BigEndian.Uint32(sum[:]), base64.StdEncoding.EncodeToString(key)), private}
}

func (w witness) cosign(checkpoint []byte, at int64) []byte {
	text, _, _ := strings.Cut(string(checkpoint), "\n\n")
	sig := ed25519.Sign(w.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n", at, text))
	var id uint32
	fmt.Sscanf(strings.Split(w.vkey, "+")[1], "%x", &id)
	blob := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, id), uint64(at))
	return fmt.Appendf(checkpoint, "— %s %s\n", w.name, base64.StdEncoding.EncodeToString(append(blob, sig...)))
}

func TestWitnesses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	a, b, c := newWitness(t, "a.test/w"), newWitness(t, "b.test/w"), newWitness(t, "c.test/w")
	o := w.order()
	o.Checkpoint = b.cosign(a.cosign(o.Checkpoint, 1_780_000_000), 1_780_000_001)
	archive := w.write(o)
	w.mustVerify(archive)
	lines := "log " + w.Key + "\nwitness a " + a.vkey + "\nwitness b " + b.vkey + " https://b.test/\nwitness c " + c.vkey + "\n"
	for quorum, ok := range map[string]bool{
		"quorum none": true, "quorum a": true, "quorum c": false, "group g any a b c\nquorum g": true, "group g 2 a b c\nquorum g": true,
		"group g all a b c\nquorum g": false, "group g 2 a b\ngroup h all g b\nquorum h": true, "group g 1 c\ngroup h all g b\nquorum h": false,
	} {
		trust, err := cosignature.ParsePolicy([]byte(lines + quorum + " # so many\n"))
		must(t, err)
		v := w.verifyWith(archive, pack.Options{Trust: trust})
		if v.OK != ok {
			t.Errorf("%q: %v\n%s", quorum, v.OK, failed(v))
		}
	}
	// A cosignature of another log's head, or of another time, is none.
	o.Checkpoint = bytes.Replace(a.cosign(w.order().Checkpoint, 1_780_000_000), []byte("— a.test/w "), []byte("— a.test/w A"), 1)
	trust, err := cosignature.ParsePolicy([]byte(lines + "quorum a\n"))
	must(t, err)
	if _, enough := trust.Witnesses(o.Checkpoint); enough {
		t.Error("a damaged cosignature counts")
	}
}

func TestParsePolicyRefuses(t *testing.T) {
	t.Parallel()
	key, _ := newKey(t, "log.test")
	a := newWitness(t, "a.test/w")
	for name, text := range map[string]string{
		"nothing": "", "no log": "quorum none", "a bad key": "log x+y+z", "two keys": "log " + key + "\nlog " + key,
		"a word": "log " + key + "\ntrust me", "an unknown quorum": "log " + key + "\nquorum a", "no quorum": "log " + key + "\nwitness a " + a.vkey,
		"a log's key for a witness": "log " + key + "\nwitness a " + key + "\nquorum a", "none as a name": "log " + key + "\nwitness none " + a.vkey + "\nquorum none",
		"an unknown member": "log " + key + "\ngroup g any b\nquorum g", "too many": "log " + key + "\nwitness a " + a.vkey + "\ngroup g 2 a\nquorum g",
		"none needed": "log " + key + "\nwitness a " + a.vkey + "\ngroup g 0 a\nquorum g", "a member twice": "log " + key + "\nwitness a " + a.vkey + "\ngroup g 2 a a\nquorum g",
		"two quorums": "log " + key + "\nwitness a " + a.vkey + "\nquorum a\nquorum none",
	} {
		if _, err := cosignature.ParsePolicy([]byte(text)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if trust, err := cosignature.ParsePolicy([]byte("# mine\n\n" + key + "\n")); err != nil || trust.Key("log.test") != key || trust.Wanted() != "none" {
		t.Errorf("a log's key alone: %v", err)
	}
}

// Of another log, or with a policy for another, nothing is verified.
func TestAnotherLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ordinary()
	archive := w.write(w.order())
	key, _ := newKey(t, "elsewhere.test/log")
	trust, err := cosignature.ParsePolicy([]byte("log " + key))
	must(t, err)
	w.refused(archive, pack.Options{Trust: trust}, "manifest", "does not name the log")
	same, _ := newKey(t, "sallyport.test/log")
	trust, err = cosignature.ParsePolicy([]byte("log " + same))
	must(t, err)
	w.refused(archive, pack.Options{Trust: trust}, "manifest", "not signed by the key")
}

// The mapping names lists that there are, and all of ours have a criterion.
func TestControlsFitThePopulations(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, p := range populations.All {
		known[p.Name] = true
		if p.Name != "other" && len(controls.Of(p.Name)) == 0 {
			t.Errorf("%s serves nothing", p.Name)
		}
	}
	for _, r := range populations.Registers {
		known[r.Name] = true
		if len(controls.Of(r.Name)) == 0 {
			t.Errorf("%s serves nothing", r.Name)
		}
	}
	for _, c := range controls.All {
		for _, name := range c.Populations {
			if !known[name] {
				t.Errorf("%s names %s", c.ID, name)
			}
		}
	}
	if fmt.Sprint(controls.Criteria("policy.activated")) != "[CC6.1 CC6.3 CC8.1 A.5.3 A.5.15 A.8.9 A.8.24 A.8.32]" {
		t.Errorf("%v", controls.Criteria("policy.activated"))
	}
}

func FuzzVerify(f *testing.F) {
	w := newWorld(f)
	w.ordinary()
	archive := w.write(w.order())
	f.Add(archive)
	f.Add(archive[:len(archive)/2])
	f.Add(repack(f, unpack(f, archive)[:3]))
	f.Fuzz(func(t *testing.T, data []byte) {
		trust, err := cosignature.ParsePolicy([]byte(w.Key))
		must(t, err)
		v, err := pack.Verify(context.Background(), bytes.NewReader(data), int64(len(data)), pack.Options{Trust: trust})
		if err == nil && v.OK && !bytes.Equal(data, archive) {
			t.Error("something else than the pack is verified")
		}
	})
}

func FuzzTrust(f *testing.F) {
	key, _ := newKey(f, "log.test")
	f.Add("log " + key + "\nwitness a " + newWitness(f, "a").vkey + "\ngroup g 1 a\nquorum g\n")
	f.Fuzz(func(t *testing.T, text string) {
		if trust, err := cosignature.ParsePolicy([]byte(text)); err == nil {
			trust.Witnesses([]byte("x\n1\n\n— a AAAA\n"))
			trust.Wanted()
		}
	})
}
