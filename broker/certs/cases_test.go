package certs_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/audit/event"
	"sallyport/audit/receipt"
	"sallyport/broker/certs"
	"sallyport/internal/certtest"
)

// vectors are all cases, in the order of the check.
func (f *forge) vectors() []vector {
	f.valid()
	f.formless()
	f.receiptless()
	f.unproved()
	f.lying()
	f.misplaced()
	return f.list
}

func (f *forge) valid() {
	f.add("valid", "first", "the only leaf of the log: the proof has no hashes", f.good(nil).Marshal())
	f.log.Grow(6)
	f.add("valid", "last", "the last leaf of eight, the log's size being a power of two", f.good(nil).Marshal())
	f.log.Grow(1000)
	f.add("valid", "among-many", "in a log of a thousand", f.good(nil).Marshal())
	f.add("valid", "all-options", "forwarding, source addresses and a security key that verifies its person", f.good(func(u *certs.User) {
		u.Key = securityKeyOf(f.t, ed25519.NewKeyFromSeed(seed("security key"))).public
		u.Forwarding, u.SourceAddress, u.VerifyRequired = []string{"agent", "port", "x11"}, []string{"192.0.2.0/24", "2001:db8::/32"}, true
	}).Marshal())
	f.add("valid", "no-extensions", "the receipt is the only extension", f.good(func(u *certs.User) { u.NoPTY = true }).Marshal())

	pre, e := f.pre(nil)
	data := e.Data.(event.CertificateIssued)
	data.Decisions, data.Emergency = []string{}, true
	e.Data = data
	cert, err := pre.Sign(nil, f.ca, f.log.Log(e))
	if err != nil {
		f.t.Fatal(err)
	}
	f.add("valid", "emergency", "under a grant that nobody approved: the event names no decisions and says so", cert.Marshal())
	f.add("valid", "unknown-field", "the event has a field that this version does not know", f.loggedAs(func(leaf string) string {
		return strings.Replace(leaf, `"data":{`, `"data":{"added_later":{"x":[1]},`, 1)
	}).Marshal())
	f.add("valid", "text-that-looks-like-the-gap", "the actor's name contains the text that marks the gap, escaped as JSON wants it", f.loggedAs(func(leaf string) string {
		return strings.Replace(leaf, `Erin Engineer`, `Erin \"pre_certificate\":\"\"`, 1)
	}).Marshal())
	f.add("valid", "cosigned", "a witness has signed the checkpoint, too", f.cosigned().Marshal())
	f.add("valid", "host", "a host's certificate", f.log.CertifyHost(certs.Host{Serial: 7, Key: seededKey(f.t, "host").PublicKey(), HostID: hostID,
		Names: []string{"db-1", "10.0.3.7"}, Now: issued, Lifetime: 30 * 24 * time.Hour}, f.hostCA, f.nonce()).Marshal(), asHost)
}

func (f *forge) formless() {
	good := f.good(nil).Marshal()
	f.add("too-large", "too-large", "the receipt is followed by 40,000 lines", f.resigned(f.good(nil), func(c *ssh.Certificate) {
		c.Extensions[forgedExtension] += strings.Repeat("\n", 40_000)
	}).Marshal())
	f.add("bad-form", "cut-off", "the last byte is missing", good[:len(good)-1])
	f.add("bad-form", "a-byte-more", "a byte follows", append(slices.Clone(good), 0))
	f.add("bad-form", "a-key", "the key itself, no certificate", f.me.PublicKey().Marshal())
	f.add("bad-form", "order", "the extensions are not in lexical order", f.otherForm(func(text string) []byte {
		return tuples(forgedExtension, inString(text), "permit-pty", "")
	}))
	f.add("bad-form", "twice", "the receipt stands there twice", f.otherForm(func(text string) []byte {
		return tuples("permit-pty", "", forgedExtension, inString(text), forgedExtension, inString(text))
	}))
	f.add("bad-form", "empty-string", "an extension without value has an empty string instead of nothing", f.otherForm(func(text string) []byte {
		return tuples("permit-pty", inString(""), forgedExtension, inString(text))
	}))
	f.add("bad-form", "bare", "the receipt stands in the extension's data without a length of its own", f.otherForm(func(text string) []byte {
		return tuples("permit-pty", "", forgedExtension, text)
	}))
}

func (f *forge) receiptless() {
	f.add("no-receipt", "stolen-key", "what the CA's key alone can make", f.resigned(f.good(nil), func(c *ssh.Certificate) {
		delete(c.Extensions, forgedExtension)
	}).Marshal())
	f.add("no-receipt", "two-receipts", "a second one, of another domain", f.resigned(f.good(nil), func(c *ssh.Certificate) {
		c.Extensions["tlog-proof@log.example.org"] = c.Extensions[forgedExtension]
	}).Marshal())
	f.add("no-receipt", "critical", "the receipt is among the critical options", f.resigned(f.good(nil), func(c *ssh.Certificate) {
		c.CriticalOptions = map[string]string{forgedExtension: c.Extensions[forgedExtension]}
		delete(c.Extensions, forgedExtension)
	}).Marshal())
	f.add("other-log", "other-domain", "the extension is called after another domain", f.resigned(f.good(nil), func(c *ssh.Certificate) {
		c.Extensions["tlog-proof@example.com"] = c.Extensions[forgedExtension]
		delete(c.Extensions, forgedExtension)
	}).Marshal())
	for _, c := range [][3]string{
		{"crlf", "its lines end in CR LF", "\n\x00\r\n"},
		{"leading-zero", "its index has a leading zero", "\nindex \x00\nindex 0"},
		{"version", "it is of another version", "@v1\x00@v2"},
		{"no-extra", "it has no extra data", "extra "},
		{"padding", "its extra data has bits beyond its end", ""},
	} {
		before, after, _ := strings.Cut(c[2], "\x00")
		f.add("bad-receipt", c[0], c[1], f.retold(func(text string) string {
			switch c[0] {
			case "no-extra":
				head, rest, _ := strings.Cut(text, "\nextra ")
				_, rest, _ = strings.Cut(rest, "\n")
				return head + "\n" + rest
			case "padding":
				i := strings.Index(text, "\nindex ") - 1
				for text[i] == '=' {
					i--
				}
				return text[:i] + string(text[i]+1) + text[i+1:]
			}
			return strings.ReplaceAll(text, before, after)
		}).Marshal())
	}
	f.add("bad-receipt", "empty", "it is empty", f.retold(func(string) string { return "" }).Marshal())
	f.add("bad-receipt", "too-long", "it has 17,000 bytes", f.rewritten(func(r *receipt.Receipt) {
		r.Extra = append(r.Extra, []byte(strings.Repeat(" ", 12_000))...)
	}).Marshal())
	f.add("bad-extra", "no-gap", "the extra data is the whole event, with the pre-certificate", f.rewritten(func(r *receipt.Receipt) {
		r.Extra = []byte(strings.Replace(string(r.Extra), `"pre_certificate":""`, `"pre_certificate":"AAAA"`, 1))
	}).Marshal())
	f.add("bad-extra", "two-gaps", "the extra data has two places for the pre-certificate", f.rewritten(func(r *receipt.Receipt) {
		r.Extra = []byte(strings.Replace(string(r.Extra), `"data":{`, `"data":{"pre_certificate":"",`, 1))
	}).Marshal())
}

func (f *forge) unproved() {
	tree := func() (size int64, root string) { t := f.log.Tree(); return t.N, t.Hash.String() }
	f.add("bad-checkpoint", "other-key", "a log of the same name with another key", f.twin().Marshal())
	f.add("bad-checkpoint", "unsigned", "nobody signed the checkpoint", f.rewritten(func(r *receipt.Receipt) {
		r.Checkpoint = []byte(strings.Split(string(r.Checkpoint), "—")[0])
	}).Marshal())
	f.add("bad-checkpoint", "grown", "the checkpoint's size was changed", f.rewritten(func(r *receipt.Receipt) {
		lines := strings.SplitN(string(r.Checkpoint), "\n", 3)
		r.Checkpoint = []byte(lines[0] + "\n9" + lines[1] + "\n" + lines[2])
	}).Marshal())
	f.add("bad-checkpoint", "extension-line", "the checkpoint, signed, has a fourth line", f.rewritten(func(r *receipt.Receipt) {
		n, root := tree()
		r.Checkpoint = f.checkpointOf(f.log.Signer, "%s\n%d\n%s\nmore\n", f.log.Verifier.Name(), n, root)
	}).Marshal())
	f.add("bad-checkpoint", "other-origin", "the checkpoint, signed, is of another log", f.rewritten(func(r *receipt.Receipt) {
		n, root := tree()
		r.Checkpoint = f.checkpointOf(f.log.Signer, "log.example.com/other\n%d\n%s\n", n, root)
	}).Marshal())
	f.add("bad-checkpoint", "index-beyond", "the index is the log's size", f.rewritten(func(r *receipt.Receipt) { r.Index, _ = tree() }).Marshal())

	f.add("not-included", "other-index", "the index is the one before", f.rewritten(func(r *receipt.Receipt) { r.Index-- }).Marshal())
	f.add("not-included", "hash-changed", "a hash of the proof has one bit changed", f.rewritten(func(r *receipt.Receipt) { r.Proof[0][31] ^= 1 }).Marshal())
	f.add("not-included", "hash-less", "a hash of the proof is missing", f.rewritten(func(r *receipt.Receipt) { r.Proof = r.Proof[1:] }).Marshal())
	f.add("not-included", "hash-more", "the proof has a hash more", f.rewritten(func(r *receipt.Receipt) { r.Proof = append(r.Proof, r.Proof[0]) }).Marshal())
	f.add("not-included", "extra-changed", "the extra data names another person", f.rewritten(func(r *receipt.Receipt) {
		r.Extra = []byte(strings.Replace(string(r.Extra), "Erin", "Mallory", 1))
	}).Marshal())
	another := f.good(nil).Extensions[forgedExtension]
	f.add("not-included", "anothers-receipt", "the receipt of another certificate of the same person", f.retold(func(string) string { return another }).Marshal())
	for _, c := range []struct {
		name, about string
		change      func(*ssh.Certificate)
	}{
		{"lives-longer", "the stolen key prolongs a good certificate", func(c *ssh.Certificate) { c.ValidBefore += 3600 }},
		{"other-login", "the stolen key turns a good certificate into one for root", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root@" + hostID} }},
		{"other-host", "the stolen key turns a good certificate into one for another host", func(c *ssh.Certificate) {
			c.ValidPrincipals = []string{"dba@host-000000000000"}
		}},
		{"more-principals", "the stolen key adds a principal", func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, "root@"+hostID) }},
		{"other-person-s-key", "the stolen key turns a good certificate into one for the thief's key", func(c *ssh.Certificate) {
			c.Key = seededKey(f.t, "thief").PublicKey()
		}},
		{"more-rights", "the stolen key adds port forwarding", func(c *ssh.Certificate) { c.Extensions["permit-port-forwarding"] = "" }},
		{"other-nonce", "the stolen key signs with another nonce, as ssh libraries do by themselves", func(c *ssh.Certificate) { c.Nonce = seed("another nonce") }},
		{"other-ca-named", "another CA's key signs a copy", func(c *ssh.Certificate) {}},
	} {
		cert := f.resigned(f.good(nil), c.change)
		if c.name == "other-ca-named" {
			cert = certtest.Resign(f.t, cert, seededKey(f.t, "thief"), c.change)
		}
		f.add("not-included", c.name, c.about, cert.Marshal(), func(v *vector) {
			login, host, _ := strings.Cut(cert.ValidPrincipals[0], "@")
			v.Login, v.HostID = login, host
		})
	}
}

// lying are certificates whose leaf is in the log, and is not what it should be.
func (f *forge) lying() {
	swap := func(before, after string) func(string) string {
		return func(leaf string) string { return strings.Replace(leaf, before, after, 1) }
	}
	for _, c := range []struct {
		verdict, name, about string
		rewrite              func(string) string
	}{
		{"bad-leaf", "other-type", "the event is a request that quotes a pre-certificate", swap("certificate.issued", "request.created")},
		{"bad-leaf", "other-version", "the event is of a version that this check does not know", swap(`"version":1,"time"`, `"version":2,"time"`)},
		{"bad-leaf", "host-event", "the event is that of a host's certificate", swap("certificate.issued", "host.certificate_issued")},
		{"bad-leaf", "name-twice", "a name stands twice in the event", swap(`"type":`, `"type":"request.created","type":`)},
		{"bad-leaf", "name-twice-within", "a name stands twice in the event's data", swap(`"serial":`, `"serial":"7","serial":`)},
		{"bad-leaf", "no-object", "the leaf is a JSON array", func(leaf string) string { return "[" + leaf + "]" }},
		{"bad-leaf", "two-values", "something follows the event", func(leaf string) string { return leaf + "{}" }},
		{"leaf-differs", "other-place", "the event has the pre-certificate outside of its data", func(leaf string) string {
			var e struct {
				Data struct {
					Pre string `json:"pre_certificate"`
				} `json:"data"`
			}
			if err := json.Unmarshal([]byte(leaf), &e); err != nil {
				f.t.Fatal(err)
			}
			field := `"pre_certificate":"` + e.Data.Pre + `"`
			return strings.Replace(strings.Replace(leaf, field+",", "", 1), `"subject":{`, `"subject":{`+field+",", 1)
		}},
		{"leaf-differs", "other-serial", "the event gives another serial", swap(`"serial":"42"`, `"serial":"43"`)},
		{"leaf-differs", "other-case", "the event gives the serial under a name in capitals", swap(`"serial":"42"`, `"Serial":"42"`)},
		{"leaf-differs", "other-principal", "the event gives another principal", swap(`"principal":"dba@`, `"principal":"root@`)},
		{"leaf-differs", "other-fingerprint", "the event gives another key", swap(ssh.FingerprintSHA256(f.me.PublicKey()), "SHA256:"+base64.RawStdEncoding.EncodeToString(seed("x")))},
		{"leaf-differs", "other-validity", "the event gives another end", swap(`"valid_before":"2026-03-01T12:05:00Z"`, `"valid_before":"2026-03-01T12:06:00Z"`)},
		{"leaf-differs", "other-person", "the event is another person's", swap(`"id":"`+personID+`"`, `"id":"per-000000000000"`)},
		{"nothing-allowed", "no-terms", "the event names no terms", swap(`"terms_hash":"`+strings.Repeat("a1", 32)+`"`, `"terms_hash":""`)},
		{"nothing-allowed", "no-policy", "the event names no policy", swap(`"policy":{"version":"3","hash":"`+strings.Repeat("c3", 32)+`"},`, "")},
		{"nothing-allowed", "odd-decision", "the event names a decision by something that is no hash", swap(`"decisions":["d1`, `"decisions":["yes`)},
	} {
		f.add(c.verdict, c.name, c.about, f.loggedAs(c.rewrite).Marshal())
	}
	broken := f.good(nil)
	broken.Signature.Blob = slices.Clone(broken.Signature.Blob)
	broken.Signature.Blob[0] ^= 1
	f.add("bad-signature", "signature-changed", "the CA's signature has one bit changed", broken.Marshal())
	newer := f.good(nil)
	logged, err := certs.CheckReceipt(newer.Marshal(), f.log.Verifier)
	if err != nil {
		f.t.Fatal(err)
	}
	old, err := receipt.ParseExtra([]byte(newer.Extensions[forgedExtension]))
	if err != nil {
		f.t.Fatal(err)
	}
	f.log.Grow(3)
	fresh := f.log.Prove(logged.Index)
	fresh.Extra = old.Extra
	newer.Extensions[forgedExtension] = string(fresh.Format())
	f.add("bad-signature", "receipt-exchanged", "the receipt is a newer one of the same leaf: true, but not what was signed", newer.Marshal())
	other := seededKey(f.t, "another CA")
	f.add("other-ca", "untrusted-ca", "in the log, by a CA that the host does not trust", f.log.CertifyWith(f.user(nil), other, f.nonce()).Marshal())
}

// misplaced are good certificates, for somewhere or sometime else.
func (f *forge) misplaced() {
	wire := f.good(nil).Marshal()
	for _, c := range []struct {
		name, about string
		change      func(*vector)
	}{
		{"over", "at the second at which it ends", func(v *vector) { v.At = issued.Add(5 * time.Minute) }},
		{"too-early", "a second before it begins", func(v *vector) { v.At = issued.Add(-61 * time.Second) }},
		{"for-root", "for another login", func(v *vector) { v.Login = "root" }},
		{"elsewhere", "on another host", func(v *vector) { v.HostID = "host-000000000000" }},
	} {
		f.add("not-here", c.name, c.about, wire, c.change)
	}
	f.add("not-here", "host-as-user", "a host's certificate at a login, by a CA that the host trusts for people", f.log.CertifyHost(certs.Host{Serial: 8,
		Key: seededKey(f.t, "host").PublicKey(), HostID: hostID, Names: []string{"db-1"}, Now: issued, Lifetime: time.Hour}, f.ca, f.nonce()).Marshal())
}
