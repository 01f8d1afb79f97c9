package grant

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
)

// Canonical is the one encoding of what is hashed.
func Canonical(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// ParseCanonical reads into v, a pointer, what its Encode wrote, and nothing else:
// encoding again must give the same bytes. That also refuses keys that stand
// twice or in other letters, missing keys, and anything after the end.
func ParseCanonical[T interface{ Encode() ([]byte, error) }](text []byte, v *T) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	again, err := (*v).Encode()
	if err != nil {
		return err
	}
	if !bytes.Equal(again, text) {
		return errors.New("the bytes are not in canonical form")
	}
	return nil
}

// Hash is how texts are named everywhere: SHA-256, hex.
func Hash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
