package certs_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"sallyport/audit/checkpoint"
	"sallyport/audit/event"
	"sallyport/audit/receipt"
	"sallyport/broker/certs"
	"sallyport/internal/certtest"
)

// forge makes certificates, good and bad ones. It has every key: the bad ones are
// signed by the true CA unless they say otherwise, as if its key had been stolen.
type forge struct {
	t              testing.TB
	log            *certtest.Log
	ca, hostCA, me ssh.Signer
	nonces         int
	list           []vector
}

func newForge(t testing.TB) *forge {
	f := &forge{t: t, log: certtest.SeededLog(t, "log.example.com/sallyport", seed("log")),
		ca: seededKey(t, "user CA"), hostCA: seededKey(t, "host CA"), me: seededKey(t, "person")}
	return f
}

const forgedExtension = "tlog-proof@log.example.com"

func (f *forge) nonce() io.Reader {
	f.nonces++
	return bytes.NewReader(seed(fmt.Sprint("nonce ", f.nonces)))
}

func (f *forge) user(change func(*certs.User)) certs.User {
	u := template(f.me.PublicKey())
	if change != nil {
		change(&u)
	}
	return u
}

// pre is a pre-certificate and its event, which is not in the log yet.
func (f *forge) pre(change func(*certs.User)) (*certs.PreCertificate, event.Event) {
	u := f.user(change)
	pre, err := u.Pre(f.ca.PublicKey(), f.nonce())
	if err != nil {
		f.t.Fatal(err)
	}
	return pre, certtest.Issued(u, pre, f.ca.PublicKey())
}

// good is a certificate in the log.
func (f *forge) good(change func(*certs.User)) *ssh.Certificate {
	return f.log.CertifyWith(f.user(change), f.ca, f.nonce())
}

// signed puts a receipt of any kind into a certificate and signs it.
func (f *forge) signed(pre *certs.PreCertificate, ca ssh.Signer, name, text string) *ssh.Certificate {
	empty := ssh.Marshal(struct{ Signature []byte }{ssh.Marshal(ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: make([]byte, 64)})})
	key, err := ssh.ParsePublicKey(append(pre.Bytes(), empty...))
	if err != nil {
		f.t.Fatal(err)
	}
	return certtest.Resign(f.t, key.(*ssh.Certificate), ca, func(c *ssh.Certificate) { c.Extensions[name] = text })
}

// loggedAs is a certificate whose leaf is any text with the pre-certificate in it.
func (f *forge) loggedAs(rewrite func(leaf string) string) *ssh.Certificate {
	pre, e := f.pre(nil)
	leaf, err := e.Encode()
	if err != nil {
		f.t.Fatal(err)
	}
	encoded := base64.StdEncoding.EncodeToString(pre.Bytes())
	text := rewrite(string(leaf))
	if text == string(leaf) {
		f.t.Fatal("the leaf is not rewritten")
	}
	r := f.log.Prove(f.log.Append([]byte(text)))
	r.Extra = []byte(strings.Replace(text, encoded, "", 1))
	return f.signed(pre, f.ca, forgedExtension, string(r.Format()))
}

// rewritten is a good certificate whose receipt was changed, then signed anew.
func (f *forge) rewritten(change func(*receipt.Receipt)) *ssh.Certificate {
	return f.retold(func(text string) string {
		r, err := receipt.ParseExtra([]byte(text))
		if err != nil {
			f.t.Fatal(err)
		}
		change(&r)
		return string(r.Format())
	})
}

func (f *forge) retold(change func(text string) string) *ssh.Certificate {
	good := f.good(nil)
	text := change(good.Extensions[forgedExtension])
	if text == good.Extensions[forgedExtension] {
		f.t.Fatal("the receipt is not changed")
	}
	return f.resigned(good, func(c *ssh.Certificate) { c.Extensions[forgedExtension] = text })
}

// resigned is a good certificate, changed, then signed anew.
func (f *forge) resigned(cert *ssh.Certificate, change func(*ssh.Certificate)) *ssh.Certificate {
	return certtest.Resign(f.t, cert, f.ca, change)
}

// checkpointOf signs any text as the log.
func (f *forge) checkpointOf(signer note.Signer, format string, args ...any) []byte {
	msg, err := note.Sign(&note.Note{Text: fmt.Sprintf(format, args...)}, signer)
	if err != nil {
		f.t.Fatal(err)
	}
	return msg
}

// add adds a vector for a login of dba on the host, a minute after it was issued.
func (f *forge) add(verdict, name, about string, wire []byte, change ...func(*vector)) {
	v := vector{Name: name, About: about, Verdict: verdict, Kind: "user", Certificate: base64.StdEncoding.EncodeToString(wire),
		Login: "dba", HostID: hostID, At: issued.Add(time.Minute)}
	for _, c := range change {
		c(&v)
	}
	if v.Kind == "host" {
		v.Login, v.HostID, v.At = "", "", time.Time{}
	}
	if verdict == "valid" {
		logged, err := certs.CheckReceipt(wire, f.log.Verifier)
		if err != nil {
			f.t.Fatalf("%s: %v", name, err)
		}
		v.Index, v.Size, v.Leaf, v.Receipt = &logged.Index, logged.Size, string(logged.Leaf), string(logged.Receipt)
		v.PreCertificate = base64.StdEncoding.EncodeToString(logged.PreCertificate)
	}
	f.list = append(f.list, v)
}

func asHost(v *vector) { v.Kind = "host" }

// tuples is the wire form of extensions, in the order given.
func tuples(pairs ...string) []byte {
	var out []byte
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, ssh.Marshal(struct{ Name, Data string }{pairs[i], pairs[i+1]})...)
	}
	return ssh.Marshal(struct{ Block []byte }{out})
}

// inString is a value as it stands in an extension's data.
func inString(value string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(value)))) + value
}

// otherForm is a good certificate with its extensions written otherwise.
func (f *forge) otherForm(extensions func(receipt string) []byte) []byte {
	good := f.good(nil)
	text := good.Extensions[forgedExtension]
	before := tuples("permit-pty", "", forgedExtension, inString(text))
	wire := bytes.Replace(good.Marshal(), before, extensions(text), 1)
	if bytes.Equal(wire, good.Marshal()) {
		f.t.Fatal("the form is not changed")
	}
	return wire
}

// twin is a log of the same name with another key, which holds the certificate.
func (f *forge) twin() *ssh.Certificate {
	twin := certtest.SeededLog(f.t, f.log.Verifier.Name(), seed("twin"))
	return twin.CertifyWith(f.user(nil), f.ca, f.nonce())
}

// cosigned adds a witness's signature to the receipt before the CA signs.
func (f *forge) cosigned() *ssh.Certificate {
	pre, e := f.pre(nil)
	r := f.log.Log(e)
	parsed, err := receipt.Parse(r.Text)
	if err != nil {
		f.t.Fatal(err)
	}
	witness := certtest.SeededLog(f.t, "witness.example.org", seed("witness"))
	n, err := note.Open(parsed.Checkpoint, note.VerifierList(f.log.Verifier))
	if err != nil {
		f.t.Fatal(err)
	}
	if parsed.Checkpoint, err = note.Sign(n, witness.Signer); err != nil {
		f.t.Fatal(err)
	}
	if _, err := checkpoint.Open(parsed.Checkpoint, f.log.Verifier); err != nil {
		f.t.Fatal(err)
	}
	cert, err := pre.Sign(nil, f.ca, certs.Receipt{Leaf: r.Leaf, Text: parsed.Format(), Log: f.log.Verifier})
	if err != nil {
		f.t.Fatal(err)
	}
	return cert
}
