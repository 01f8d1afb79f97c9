package certs

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"sallyport/audit/receipt"
	"sallyport/internal/names"
)

// receiptPrefix and the domain of the log's origin are the name of the extension
// that holds the receipt (RFC 4251, section 6: a name of one's own is name@domain).
const receiptPrefix = "tlog-proof@"

// ErrNoDomain says that a log's origin does not begin with a domain.
var ErrNoDomain = errors.New("the log's origin does not begin with a domain, such as example.com")

// maxDomain is the most bytes of a DNS name, and maxLabel of a part of it (RFC 1035).
const maxDomain, maxLabel = 253, 63

// Domain is that of a log's origin: what stands before the first slash, which must
// be a DNS name of at least two labels and at most 253 characters, in lower case. The
// last label begins with a letter: it is neither an address nor a name that means
// something else on every machine.
func Domain(origin string) (string, error) {
	domain, _, _ := strings.Cut(origin, "/")
	labels := strings.Split(domain, ".")
	last := labels[len(labels)-1]
	if len(labels) < 2 || len(domain) > maxDomain {
		return "", ErrNoDomain
	}
	for _, label := range labels {
		if !names.Dotted(label, maxLabel) {
			return "", ErrNoDomain
		}
	}
	if last[0] < 'a' {
		return "", ErrNoDomain
	}
	return domain, nil
}

// ReceiptExtension is the name of the extension that holds receipts of the log
// with this origin: "tlog-proof@" and its domain.
func ReceiptExtension(origin string) (string, error) {
	domain, err := Domain(origin)
	if err != nil {
		return "", err
	}
	return receiptPrefix + domain, nil
}

// Receipt is what the log says of a pre-certificate.
type Receipt struct {
	Leaf []byte        // the event that holds the pre-certificate, exactly as it was logged
	Text []byte        // c2sp.org/tlog-proof of that leaf, without extra data
	Log  note.Verifier // of the log; its name is the origin
}

// hole is where a leaf's pre-certificate was, and goes: it stands in no other
// place, since within a JSON text its quotation marks would be escaped.
const (
	holeStart = `"pre_certificate":"`
	hole      = holeStart + `"`
)

// cut takes the pre-certificate out of a leaf: what is left is all that the
// certificate does not say itself.
func cut(leaf, pre []byte) ([]byte, error) {
	filled := fillHole(pre)
	at := bytes.Index(leaf, []byte(holeStart))
	if at < 0 || !bytes.HasPrefix(leaf[at:], filled) || bytes.Contains(leaf[at+len(filled):], []byte(holeStart)) {
		return nil, errors.New("the logged event is not that of this pre-certificate")
	}
	return slices.Concat(leaf[:at], []byte(hole), leaf[at+len(filled):]), nil
}

// fill is the leaf again.
func fill(rest, pre []byte) ([]byte, error) {
	if bytes.Count(rest, []byte(hole)) != 1 {
		return nil, errors.New("the extra data is not an event without its pre-certificate")
	}
	return bytes.Replace(rest, []byte(hole), fillHole(pre), 1), nil
}

func fillHole(pre []byte) []byte {
	filled := []byte(holeStart)
	filled = base64.StdEncoding.AppendEncode(filled, pre)
	return append(filled, '"')
}

// extension checks the receipt and returns the extension for the pre-certificate.
// Receipts are compared with what the log says: a certificate that no host would
// take does not leave.
func (r Receipt) extension(pre []byte) (name, value string, err error) {
	if r.Log == nil {
		return "", "", errors.New("no log's verifier")
	}
	if name, err = ReceiptExtension(r.Log.Name()); err != nil {
		return "", "", err
	}
	proof, err := receipt.Parse(r.Text)
	if err != nil {
		return "", "", err
	}
	if err := proof.Verify(r.Leaf, r.Log); err != nil {
		return "", "", err
	}
	rest, err := cut(r.Leaf, pre)
	if err != nil {
		return "", "", err
	}
	text, err := proof.WithExtra(rest)
	if err != nil {
		return "", "", err
	}
	return name, string(text), nil
}

// with is the pre-certificate's certificate with one extension more.
func (p *PreCertificate) with(name, value string) *ssh.Certificate {
	cert := p.cert
	cert.Extensions = maps.Clone(cert.Extensions)
	if cert.Extensions == nil {
		cert.Extensions = map[string]string{}
	}
	cert.Extensions[name] = value
	return &cert
}

// withoutReceipt is the pre-certificate of a certificate, in bytes: without its
// receipt and without its signature.
func withoutReceipt(cert *ssh.Certificate) []byte {
	c := *cert
	c.Extensions = maps.Clone(cert.Extensions)
	maps.DeleteFunc(c.Extensions, func(name, _ string) bool { return isReceipt(name) })
	return unsigned(&c)
}

func isReceipt(extension string) bool { return strings.HasPrefix(extension, receiptPrefix) }

// ownExtensions are a certificate's extensions but for the receipt.
func ownExtensions(cert *ssh.Certificate) map[string]string {
	own := maps.Clone(cert.Extensions)
	maps.DeleteFunc(own, func(name, _ string) bool { return isReceipt(name) })
	return own
}

// receiptOf is the only receipt of a certificate, and the extension's name.
func receiptOf(cert *ssh.Certificate) (name, text string, err error) {
	for n, value := range cert.Extensions {
		if !isReceipt(n) {
			continue
		}
		if name != "" {
			return "", "", fmt.Errorf("it has two receipts, %s and %s", name, n)
		}
		name, text = n, value
	}
	if name == "" {
		return "", "", errors.New("it has no receipt")
	}
	return name, text, nil
}
