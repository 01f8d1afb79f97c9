package receipt_test

import (
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/audit/checkpoint"
	"sallyport/audit/receipt"
)

// memory is a small log of strings.
type memory struct {
	hashes []tlog.Hash
	size   int64
	signer note.Signer
	vkey   note.Verifier
	key    string // vkey's text
}

func newLog(t testing.TB, size int) *memory {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, "log.example.com")
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{size: int64(size), key: vkey}
	if m.signer, err = note.NewSigner(skey); err != nil {
		t.Fatal(err)
	}
	if m.vkey, err = note.NewVerifier(vkey); err != nil {
		t.Fatal(err)
	}
	for i := range m.size {
		added, err := tlog.StoredHashes(i, leaf(i), m)
		if err != nil {
			t.Fatal(err)
		}
		m.hashes = append(m.hashes, added...)
	}
	return m
}

func leaf(i int64) []byte { return fmt.Appendf(nil, "leaf %d", i) }

func (m *memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, i := range indexes {
		found = append(found, m.hashes[i])
	}
	return found, nil
}

func (m *memory) receipt(t testing.TB, i int64) receipt.Receipt {
	t.Helper()
	root, err := tlog.TreeHash(m.size, m)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := checkpoint.Sign(tlog.Tree{N: m.size, Hash: root}, m.signer)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := tlog.ProveRecord(m.size, i, m)
	if err != nil {
		t.Fatal(err)
	}
	return receipt.Receipt{Index: i, Proof: proof, Checkpoint: msg}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	for size := 1; size <= 20; size++ {
		m, other := newLog(t, size), newLog(t, size)
		for i := range m.size {
			text := m.receipt(t, i).Format()
			if got, err := receipt.Verify(leaf(i), text, m.vkey); err != nil || got != i {
				t.Errorf("receipt of %d of %d: %d, %v", i, size, got, err)
			}
			if _, err := receipt.Verify(leaf(i+1), text, m.vkey); err == nil {
				t.Errorf("the receipt of %d of %d proves another leaf", i, size)
			}
			if _, err := receipt.Verify(leaf(i), text, other.vkey); err == nil {
				t.Errorf("the receipt of %d of %d is taken for another log's", i, size)
			}
		}
	}
}

func TestVerifyRefusesForgeries(t *testing.T) {
	t.Parallel()
	m := newLog(t, 11)
	for name, forge := range map[string]func(*receipt.Receipt){
		"another index":         func(r *receipt.Receipt) { r.Index++ },
		"an index past the end": func(r *receipt.Receipt) { r.Index = 11 },
		"a hash less":           func(r *receipt.Receipt) { r.Proof = r.Proof[1:] },
		"a hash more":           func(r *receipt.Receipt) { r.Proof = append(r.Proof, r.Proof[0]) },
		"another hash":          func(r *receipt.Receipt) { r.Proof[0][31] ^= 1 },
		"another order":         func(r *receipt.Receipt) { r.Proof[0], r.Proof[1] = r.Proof[1], r.Proof[0] },
		"another size": func(r *receipt.Receipt) {
			r.Checkpoint = []byte(strings.Replace(string(r.Checkpoint), "\n11\n", "\n12\n", 1))
		},
		"another origin": func(r *receipt.Receipt) {
			r.Checkpoint = []byte(strings.Replace(string(r.Checkpoint), "log.", "lag.", 1))
		},
		"no signature":           func(r *receipt.Receipt) { r.Checkpoint = r.Checkpoint[:strings.Index(string(r.Checkpoint), "—")] },
		"no checkpoint":          func(r *receipt.Receipt) { r.Checkpoint = nil },
		"another log":            func(r *receipt.Receipt) { r.Checkpoint = newLog(t, 11).receipt(t, 0).Checkpoint },
		"an extension, signed":   func(r *receipt.Receipt) { r.Checkpoint = m.sign(t, "log.example.com\n%d\n%s\nextension\n") },
		"leading zeros, signed":  func(r *receipt.Receipt) { r.Checkpoint = m.sign(t, "log.example.com\n0%d\n%s\n") },
		"another origin, signed": func(r *receipt.Receipt) { r.Checkpoint = m.sign(t, "other.example.com\n%d\n%s\n") },
	} {
		r := m.receipt(t, 5)
		forge(&r)
		if _, err := receipt.Verify(leaf(5), r.Format(), m.vkey); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// sign signs a checkpoint of any form.
func (m *memory) sign(t testing.TB, format string) []byte {
	t.Helper()
	root, err := tlog.TreeHash(m.size, m)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := note.Sign(&note.Note{Text: fmt.Sprintf(format, m.size, root)}, m.signer)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func TestParseTakesOneFormOnly(t *testing.T) {
	t.Parallel()
	good := string(newLog(t, 11).receipt(t, 5).Format())
	if _, err := receipt.Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":            "",
		"another version":    strings.Replace(good, "@v1", "@v2", 1),
		"CRLF":               strings.ReplaceAll(good, "\n", "\r\n"),
		"leading zero":       strings.Replace(good, "index 5", "index 05", 1),
		"a plus":             strings.Replace(good, "index 5", "index +5", 1),
		"too large an index": strings.Replace(good, "index 5", "index 9223372036854775808", 1),
		"extra data":         strings.Replace(good, "index 5", "extra AAAA\nindex 5", 1),
		"empty extra data":   strings.Replace(good, "index 5", "extra \nindex 5", 1),
		"no last line end":   strings.TrimSuffix(good, "\n"),
		"a line more":        good + "\n" + strings.Repeat("x", receipt.MaxSize),
		"too many hashes":    strings.Replace(good, "index 5\n", "index 5\n"+strings.Repeat(strings.Repeat("A", 43)+"=\n", 64), 1),
		"no hash":            strings.Replace(good, "index 5\n", "index 5\nAAAA\n", 1),
		"loose base64":       strings.Replace(good, "=\n", "B\n", 1),
	} {
		if text == good {
			t.Fatalf("%s: nothing changed", name)
		}
		if r, err := receipt.Parse([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

var update = flag.Bool("update", false, "write the test vector anew, with a new key")

// The vector is published, so that others can test their verifiers with it.
func TestVector(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("testdata", "vector")
	if *update {
		m := newLog(t, 11)
		for name, content := range map[string][]byte{
			"log.vkey": []byte(m.key + "\n"), "leaf": leaf(5), "receipt.tlog-proof": m.receipt(t, 5).Format(),
		} {
			if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), content, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(read("log.vkey"))))
	if err != nil {
		t.Fatal(err)
	}
	if i, err := receipt.Verify(read("leaf"), read("receipt.tlog-proof"), verifier); err != nil || i != 5 {
		t.Errorf("index %d, %v", i, err)
	}
}

func FuzzParse(f *testing.F) {
	m := newLog(f, 11)
	for _, i := range []int64{0, 5, 10} {
		f.Add(m.receipt(f, i).Format())
	}
	f.Add([]byte("c2sp.org/tlog-proof@v1\nindex 0\n\n"))
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra AA==\nindex 0\n\nx\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := receipt.Parse(text)
		if err != nil {
			return
		}
		if string(r.Format()) != string(text) {
			t.Errorf("%q is not in its only form", text)
		}
		if i, err := receipt.Verify(leaf(3), text, m.vkey); err == nil {
			t.Errorf("%q proves a leaf that was given no receipt, at %d", text, i)
		}
	})
}

func FuzzParseExtra(f *testing.F) {
	m := newLog(f, 11)
	for _, extra := range []string{"", "x", "more about it"} {
		r := m.receipt(f, 5)
		r.Extra = []byte(extra)
		f.Add(r.Format())
	}
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra \nindex 0\n\nx\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := receipt.ParseExtra(text)
		if err != nil {
			return
		}
		if string(r.Format()) != string(text) {
			t.Errorf("%q is not in its only form", text)
		}
		tree, err := r.Tree(m.vkey)
		if err == nil && r.Check(leaf(3), tree) == nil {
			t.Errorf("%q proves a leaf that was given no receipt", text)
		}
	})
}
