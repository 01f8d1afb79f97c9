// Package certs holds the rules about SSH keys and certificates as pure
// functions: which keys are strong enough, what a certificate must look like
// (P2, P3), and proof of possession (P6). The broker, hosts and verifiers use
// the same ones, so there is one implementation of each promise.
//
// A certificate is made in three steps, so that the log can hold it before it
// exists (P1): a [User] or [Host] template becomes a [PreCertificate], which is
// final but for the signature; its bytes go into the log; then it is signed.
//
// Formats: PROTOCOL.certkeys and PROTOCOL.sshsig of OpenSSH.
package certs
