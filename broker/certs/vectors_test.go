package certs_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"sallyport/broker/certs"
)

var update = flag.Bool("update", false, "write the test vectors")

// vector is one published case; testdata/receipts/README.md describes the fields.
type vector struct {
	Name        string    `json:"name"`
	About       string    `json:"about"`
	Verdict     string    `json:"verdict"`
	Certificate string    `json:"certificate"`
	Kind        string    `json:"kind"`
	Login       string    `json:"login,omitempty"`
	HostID      string    `json:"host_id,omitempty"`
	At          time.Time `json:"at,omitzero"`

	Index          *int64 `json:"index,omitempty"`
	Size           int64  `json:"size,omitempty"`
	PreCertificate string `json:"pre_certificate,omitempty"`
	Leaf           string `json:"leaf,omitempty"`
	Receipt        string `json:"receipt,omitempty"`
}

const vectorsDir = "testdata/receipts"

// The vectors are published, so that others can test their verifiers with them;
// they are made here, always the same.
func TestVectors(t *testing.T) {
	t.Parallel()
	made := newForge(t).vectors()
	text, err := json.MarshalIndent(made, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	f := newForge(t)
	files := map[string][]byte{"vectors.json": text, "log.vkey": []byte(f.log.Key + "\n"),
		"user_ca.pub": []byte(certs.Line(f.ca.PublicKey()) + "\n"), "host_ca.pub": []byte(certs.Line(f.hostCA.PublicKey()) + "\n")}
	for name, content := range files {
		path := filepath.Join(vectorsDir, name)
		if *update {
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, content) {
			t.Errorf("%s is not what this test makes: go test ./broker/certs -run TestVectors -update (%v)", path, err)
		}
	}
}

// published reads the vectors as anybody else would.
func published(t testing.TB) ([]vector, certs.Trust, ssh.PublicKey) {
	t.Helper()
	var list []vector
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(vectorsDir, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if err := json.Unmarshal(read("vectors.json"), &list); err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(read("log.vkey"))))
	if err != nil {
		t.Fatal(err)
	}
	var keys []ssh.PublicKey
	for _, name := range []string{"user_ca.pub", "host_ca.pub"} {
		key, err := certs.ParseKey(string(read(name)))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return list, certs.Trust{CAs: keys[:1], Log: verifier}, keys[1]
}

func TestPublishedVectors(t *testing.T) {
	t.Parallel()
	list, trust, _ := published(t)
	verdicts := map[string]int{}
	for _, v := range list {
		verdicts[v.Verdict]++
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			wire, err := base64.StdEncoding.DecodeString(v.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			var logged certs.Logged
			if v.Kind == "user" {
				logged, err = certs.Admit(wire, trust, v.Login, v.HostID, v.At)
			} else {
				logged, err = certs.CheckReceipt(wire, trust.Log)
			}
			if v.Verdict != "valid" {
				if string(certs.ReasonOf(err)) != v.Verdict {
					t.Errorf("%v, want %s", err, v.Verdict)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if logged.Index != *v.Index || logged.Size != v.Size || string(logged.Leaf) != v.Leaf || string(logged.Receipt) != v.Receipt ||
				base64.StdEncoding.EncodeToString(logged.PreCertificate) != v.PreCertificate {
				t.Errorf("it says %+v", logged)
			}
		})
	}
	for _, reason := range []certs.Reason{"valid", certs.TooLarge, certs.BadForm, certs.NoReceipt, certs.OtherLog, certs.BadReceipt,
		certs.BadExtra, certs.BadCheckpoint, certs.NotIncluded, certs.BadLeaf, certs.LeafDiffers, certs.NothingAllowed,
		certs.BadSignature, certs.OtherCA, certs.NotHere} {
		if verdicts[string(reason)] == 0 {
			t.Errorf("no vector is %s", reason)
		}
	}
}

// The README names every vector's verdict.
func TestVectorsAreDescribed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(vectorsDir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	list, _, _ := published(t)
	for _, v := range list {
		if !strings.Contains(string(text), "`"+v.Verdict+"`") {
			t.Errorf("the README says nothing of %s", v.Verdict)
		}
	}
	if names := slices.Compact(slices.Sorted(func(yield func(string) bool) {
		for _, v := range list {
			if !yield(v.Name) {
				return
			}
		}
	})); len(names) != len(list) {
		t.Error("two vectors have one name")
	}
}

// seed is the private half of a key that is only good for test vectors.
func seed(what string) []byte {
	sum := sha256.Sum256([]byte("sallyport test vector: " + what))
	return sum[:]
}

func seededKey(t testing.TB, what string) ssh.Signer {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed(what)))
	if err != nil {
		t.Fatal(err)
	}
	return signer
}
