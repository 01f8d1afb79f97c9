package signin

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
)

// The provider wants its ID token back at sign-out (id_token_hint). Until then it
// lies with the cookie's contents in the database, under a key made from the
// cookie itself, of which the database has only a hash: whoever reads the
// database or a backup cannot read the token.

// hintKey is where a cookie's contents have it.
const hintKey = "id_token_hint"

func hintCipher(cookie string) cipher.AEAD {
	// None of these fails with a hash and key of these lengths.
	key, err := hkdf.Key(sha256.New, []byte(cookie), nil, "sallyport id_token_hint", 32)
	if err != nil {
		panic("signin: " + err.Error())
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("signin: " + err.Error())
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("signin: " + err.Error())
	}
	return aead
}

func sealHint(cookie, idToken string) []byte {
	return hintCipher(cookie).Seal(nil, nil, []byte(idToken), nil)
}

// openHint gives the ID token back, or nothing: sign-out works without it.
func openHint(cookie string, sealed []byte) string {
	idToken, err := hintCipher(cookie).Open(nil, nil, sealed, nil)
	if err != nil {
		return ""
	}
	return string(idToken)
}
