package keys

import "golang.org/x/mod/sumdb/note"

// LoadLog reads the log's key alone, as Load would: its signer and its public half in
// note format.
func LoadLog(dir string) (note.Signer, string, error) {
	if err := checkFolder(dir); err != nil {
		return nil, "", err
	}
	private, public, err := loadLogKey(dir)
	if err != nil {
		return nil, "", err
	}
	signer, err := note.NewSigner(private)
	return signer, public, err
}
