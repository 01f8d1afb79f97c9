// Package certs holds the rules about SSH keys and certificates as pure
// functions: which keys are strong enough, what a certificate must look like
// (P2, P3), and proof of possession (P6). The broker, hosts and verifiers use
// the same ones, so there is one implementation of each promise.
//
// A certificate is made in three steps, so that the log can hold it before it
// exists (P1): a [User] or [Host] template becomes a [PreCertificate], which is
// final but for receipt and signature; its bytes go into the log; then it is
// signed, with the log's receipt in one of its extensions.
//
// A certificate therefore carries the proof that it is in the log. [CheckReceipt]
// verifies that, offline and with the log's public key alone; [Admit] is what a
// host asks at a login. Whoever has stolen the CA's key can sign anything, and
// nothing that passes either.
//
// Formats: PROTOCOL.certkeys and PROTOCOL.sshsig of OpenSSH, c2sp.org/tlog-proof;
// how they go together is in docs/receipts.md.
package certs
