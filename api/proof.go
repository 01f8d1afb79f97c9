package api

import "strings"

// ProofNamespace is the SSHSIG namespace of proofs of possession (P6).
const ProofNamespace = "sallyport-certificate"

// ProofMessage is what a caller signs with the key that is to be certified:
// it names the broker and the request, so that a proof made for one broker or
// one grant is worth nothing at another, and the key itself is in the SSHSIG.
//
// With OpenSSH's own tools: printf '…' | ssh-keygen -Y sign -n sallyport-certificate -f KEY
func ProofMessage(brokerURL, requestID string) []byte {
	return []byte("sallyport certificate request v1\n" +
		strings.TrimRight(brokerURL, "/") + "\n" + requestID + "\n")
}
