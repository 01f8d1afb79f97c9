package event

// ProviderKeysSeen records the keys that the identity provider published at the
// event's time, and by which decisions are checked that it signed.
type ProviderKeysSeen struct {
	Issuer   string `json:"issuer"`    // of the provider
	ClientID string `json:"client_id"` // Sallyport's at the issuer
	Note     string `json:"note"`      // about the keys, signed by the log's key; see package audit/vouch
	NoteHash string `json:"note_hash"` // SHA-256 of it, hex
}

func (ProviderKeysSeen) EventType() (string, int) { return "provider.keys_seen", 1 }
func (d ProviderKeysSeen) Summary() string {
	return "saw the keys of the identity provider " + d.Issuer
}
