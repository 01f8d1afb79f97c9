package certs

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// MaxCertificateSize is the most bytes that a certificate may have on the wire.
// Ours have two to four thousand. sshd takes ones of three times the limit, and an
// agent's whole list may have 256 KiB.
const MaxCertificateSize = 32 << 10

// ParseCertificate reads a certificate in wire format. It takes one form only:
// exactly the bytes that come out when it is written again.
func ParseCertificate(wire []byte) (*ssh.Certificate, error) {
	if len(wire) > MaxCertificateSize {
		return nil, unproved(TooLarge, fmt.Errorf("a certificate of %d bytes, more than %d", len(wire), MaxCertificateSize))
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return nil, unproved(BadForm, err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, unproved(BadForm, fmt.Errorf("a key of type %s, not a certificate", key.Type()))
	}
	if !bytes.Equal(cert.Marshal(), wire) {
		return nil, unproved(BadForm, errors.New("written again, the certificate has other bytes"))
	}
	return cert, nil
}

// ReadLine is the certificate, in wire format, of one line as in a -cert.pub file:
// its type, its base64, and a comment or none.
func ReadLine(text string) ([]byte, error) {
	if len(text) > 2*MaxCertificateSize {
		return nil, unproved(TooLarge, fmt.Errorf("a line of %d bytes", len(text)))
	}
	text = strings.TrimRight(text, "\r\n")
	fields := strings.SplitN(text, " ", 3)
	if len(fields) < 2 || strings.ContainsAny(text, "\r\n\x00") {
		return nil, unproved(BadForm, errors.New("not one line of a type and base64"))
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil {
		return nil, unproved(BadForm, err)
	}
	cert, err := ParseCertificate(wire)
	if err != nil {
		return nil, err
	}
	if cert.Type() != fields[0] {
		return nil, unproved(BadForm, fmt.Errorf("a certificate of type %s under the name %q", cert.Type(), fields[0]))
	}
	return wire, nil
}
