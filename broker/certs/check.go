package certs

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// CheckUser verifies a user certificate as anybody can who knows the CA, the
// login and the host: at the time given it is valid, it is for exactly this
// principal and no other, it allows nothing but what some rule can allow, and the
// CA signed it (P2). It trusts nothing in the certificate but the signature.
func CheckUser(cert *ssh.Certificate, ca ssh.PublicKey, login, hostID string, at time.Time) error {
	if err := checkUser(cert, login, hostID, at); err != nil {
		return err
	}
	return checkSignature(cert, ca)
}

// checkUser is CheckUser but for the signature.
func checkUser(cert *ssh.Certificate, login, hostID string, at time.Time) error {
	principal, err := Principal(login, hostID)
	if err != nil {
		return err
	}
	if cert.CertType != ssh.UserCert {
		return fmt.Errorf("certificate type %d is not that of a user certificate", cert.CertType)
	}
	// Exactly one: an empty list means "any" to some readers.
	if len(cert.ValidPrincipals) != 1 || cert.ValidPrincipals[0] != principal {
		return fmt.Errorf("principals are %q, not %q alone", cert.ValidPrincipals, principal)
	}
	if _, _, _, _, err := agentKeyID(cert.KeyId); err == nil {
		if err := checkAgent(cert); err != nil {
			return err
		}
		return checkCommon(cert, at)
	}
	requestID, personID, _ := strings.Cut(cert.KeyId, ":")
	if _, err := KeyID(requestID, personID); err != nil {
		return fmt.Errorf("key id: %w", err)
	}
	if err := checkOptions(cert); err != nil {
		return err
	}
	if err := checkCommon(cert, at); err != nil {
		return err
	}
	if life := unix(cert.ValidBefore).Sub(unix(cert.ValidAfter)); life > MaxLifetime+Backdate {
		return fmt.Errorf("validity of %s is longer than any certificate's", life)
	}
	return nil
}

// Check verifies that a certificate says what the template does, and P2 and P3
// with it, at the time given, which is not before the template's.
func (u User) Check(cert *ssh.Certificate, ca ssh.PublicKey, at time.Time) error {
	if err := u.CheckContent(cert, at); err != nil {
		return err
	}
	return checkSignature(cert, ca)
}

// CheckContent is Check for a certificate whose signature has just been verified,
// as Sign does: that takes most of the time.
func (u User) CheckContent(cert *ssh.Certificate, at time.Time) error {
	if err := checkUser(cert, u.Login, u.HostID, at); err != nil {
		return err
	}
	if err := sameKeyAndSerial(cert, u.Key, u.Serial); err != nil {
		return err
	}
	if keyID, err := KeyID(u.RequestID, u.PersonID); err != nil || cert.KeyId != keyID {
		return fmt.Errorf("key id is %q, not %q", cert.KeyId, keyID)
	}
	if err := u.checkOptions(cert); err != nil {
		return err
	}
	after, before := unix(cert.ValidAfter), unix(cert.ValidBefore)
	switch {
	case after.Before(u.Now.Add(-Backdate)):
		return fmt.Errorf("validity starts at %s, more than %s before %s", after, Backdate, u.Now)
	case before.After(u.Now.Add(u.Lifetime)):
		return fmt.Errorf("validity ends at %s, later than %s after %s", before, u.Lifetime, u.Now)
	case before.After(u.GrantEnds):
		return fmt.Errorf("validity ends at %s, after the grant's end at %s", before, u.GrantEnds)
	}
	return nil
}

// Check verifies that a host certificate says what the template does.
func (h Host) Check(cert *ssh.Certificate, ca ssh.PublicKey, at time.Time) error {
	if err := h.CheckContent(cert, at); err != nil {
		return err
	}
	return checkSignature(cert, ca)
}

// CheckContent is Check for a certificate whose signature has just been verified.
func (h Host) CheckContent(cert *ssh.Certificate, at time.Time) error {
	if cert.CertType != ssh.HostCert {
		return fmt.Errorf("certificate type %d is not that of a host certificate", cert.CertType)
	}
	if cert.KeyId != h.HostID || len(cert.CriticalOptions) != 0 || len(ownExtensions(cert)) != 0 {
		return errors.New("the host certificate has another key id, or options")
	}
	if len(cert.ValidPrincipals) != 1+len(h.Names) || cert.ValidPrincipals[0] != h.HostID {
		return fmt.Errorf("principals are %q, not the host's", cert.ValidPrincipals)
	}
	for i, name := range h.Names {
		if cert.ValidPrincipals[1+i] != name || !validHostPrincipal(name) {
			return fmt.Errorf("principals are %q, not the host's", cert.ValidPrincipals)
		}
	}
	if err := sameKeyAndSerial(cert, h.Key, h.Serial); err != nil {
		return err
	}
	if unix(cert.ValidBefore).After(h.Now.Add(h.Lifetime)) {
		return fmt.Errorf("validity ends at %s, later than %s after %s", unix(cert.ValidBefore), h.Lifetime, h.Now)
	}
	return checkCommon(cert, at)
}

// checkCommon verifies what holds for both types of certificates, but for the
// signature.
func checkCommon(cert *ssh.Certificate, at time.Time) error {
	if err := CheckKey(cert.Key); err != nil {
		return fmt.Errorf("the certified key: %w", err)
	}
	if cert.Serial == 0 {
		return errors.New("the certificate has no serial")
	}
	if len(cert.Nonce) != nonceSize {
		return fmt.Errorf("the nonce has %d bytes, not %d", len(cert.Nonce), nonceSize)
	}
	if len(cert.Reserved) != 0 {
		return errors.New("the reserved field is not empty")
	}
	if cert.ValidBefore > math.MaxInt64 || cert.ValidAfter >= cert.ValidBefore {
		return fmt.Errorf("validity from %d to %d is no window", cert.ValidAfter, cert.ValidBefore)
	}
	if at.Before(unix(cert.ValidAfter)) || !at.Before(unix(cert.ValidBefore)) {
		return fmt.Errorf("not valid at %s, but from %s to %s", at, unix(cert.ValidAfter), unix(cert.ValidBefore))
	}
	return nil
}

func checkSignature(cert *ssh.Certificate, ca ssh.PublicKey) error {
	return checkSignatureOver(unsigned(cert), cert, ca)
}

// checkSignatureOver is checkSignature of a certificate whose unsigned bytes are known.
func checkSignatureOver(message []byte, cert *ssh.Certificate, ca ssh.PublicKey) error {
	if cert.SignatureKey == nil || cert.Signature == nil || !bytes.Equal(cert.SignatureKey.Marshal(), ca.Marshal()) {
		return errors.New("the certificate is not by this CA")
	}
	if ca.Type() == ssh.KeyAlgoRSA && cert.Signature.Format == ssh.KeyAlgoRSA {
		return errors.New("the CA's signature uses SHA-1")
	}
	if err := ca.Verify(message, cert.Signature); err != nil {
		return fmt.Errorf("the CA's signature: %w", err)
	}
	return nil
}

func sameKeyAndSerial(cert *ssh.Certificate, key ssh.PublicKey, serial uint64) error {
	if !bytes.Equal(cert.Key.Marshal(), key.Marshal()) {
		return errors.New("the certificate is for another key")
	}
	if cert.Serial != serial {
		return fmt.Errorf("serial is %d, not %d", cert.Serial, serial)
	}
	return nil
}
