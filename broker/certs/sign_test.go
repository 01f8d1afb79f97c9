package certs_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"maps"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/broker/certs"
	"sallyport/internal/certtest"
)

// liar signs something else than it was asked to, or claims another key.
type liar struct {
	ssh.Signer
	public ssh.PublicKey
}

func (l liar) PublicKey() ssh.PublicKey { return l.public }

func TestSignGivesWhatWasLogged(t *testing.T) {
	t.Parallel()
	ca, log := newKey(t), certtest.NewLog(t, origin)
	u := template(newKey(t).PublicKey())
	nonce := bytes.Repeat([]byte{7}, 32)
	pre, err := u.Pre(ca.PublicKey(), bytes.NewReader(nonce))
	if err != nil {
		t.Fatal(err)
	}
	logged := pre.Bytes()
	receipt := log.Log(certtest.Issued(u, pre, ca.PublicKey()))
	cert, err := pre.Sign(rand.Reader, ca, receipt)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(cert.Nonce, nonce) {
		t.Errorf("nonce %x, want the one that was logged", cert.Nonce)
	}
	// Without the receipt and the signature, the certificate is the logged bytes.
	if value, found := cert.Extensions[receiptName]; !found {
		t.Error("the certificate has no receipt")
	} else {
		stripped := *cert
		stripped.Extensions, stripped.Signature = maps.Clone(cert.Extensions), nil
		delete(stripped.Extensions, receiptName)
		if got := stripped.Marshal(); !bytes.Equal(got[:len(got)-4], logged) {
			t.Error("the certificate is not the pre-certificate, a receipt and a signature")
		}
		if signed := signedBytes(cert); !bytes.Contains(signed, []byte(value)) || ca.PublicKey().Verify(signed, cert.Signature) != nil {
			t.Error("the CA did not sign the receipt too")
		}
	}
	clear(logged)
	if again := pre.Bytes(); bytes.Equal(again, logged) {
		t.Error("who holds the logged bytes can change what is signed")
	}

	if _, err := pre.Sign(rand.Reader, newKey(t), receipt); err == nil {
		t.Error("another CA could sign")
	}
	if _, err := pre.Sign(rand.Reader, liar{newKey(t), ca.PublicKey()}, receipt); err == nil {
		t.Error("a bad signature went out")
	}
}

// What is not in the log is not signed: the CA is not even asked.
func TestP1_NoReceiptNoSignature(t *testing.T) {
	t.Parallel()
	ca, log := newKey(t), certtest.NewLog(t, origin)
	log.Grow(5)
	u := template(newKey(t).PublicKey())
	pre, err := u.Pre(ca.PublicKey(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := log.Log(certtest.Issued(u, pre, ca.PublicKey()))
	another := u
	another.Serial++
	other, err := another.Pre(ca.PublicKey(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	theirs := log.Log(certtest.Issued(another, other, ca.PublicKey()))
	local := certtest.NewLog(t, "localhost")
	for name, r := range map[string]certs.Receipt{
		"nothing":                     {},
		"no receipt":                  {Leaf: good.Leaf, Log: good.Log},
		"no leaf":                     {Text: good.Text, Log: good.Log},
		"no log":                      {Leaf: good.Leaf, Text: good.Text},
		"another certificate's":       theirs,
		"another certificate's leaf":  {Leaf: theirs.Leaf, Text: good.Text, Log: good.Log},
		"another certificate's place": {Leaf: good.Leaf, Text: theirs.Text, Log: good.Log},
		"another log's":               {Leaf: good.Leaf, Text: good.Text, Log: certtest.NewLog(t, origin).Verifier},
		"a log without a domain":      local.Log(certtest.Issued(u, pre, ca.PublicKey())),
	} {
		asked := false
		if cert, err := pre.Sign(rand.Reader, asking{ca, &asked}, r); err == nil || cert != nil || asked {
			t.Errorf("%s: %v, the CA was asked: %v", name, err, asked)
		}
	}
	if _, err := pre.Sign(rand.Reader, ca, good); err != nil {
		t.Error(err)
	}
}

// asking tells whether it was asked for a signature.
type asking struct {
	ssh.Signer
	asked *bool
}

func (a asking) Sign(random io.Reader, message []byte) (*ssh.Signature, error) {
	*a.asked = true
	return a.Signer.Sign(random, message)
}

// signedBytes is what the CA signed.
func signedBytes(cert *ssh.Certificate) []byte {
	c := *cert
	c.Signature = nil
	out := c.Marshal()
	return out[:len(out)-4]
}
