package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

func auditor(t testing.TB) (*age.X25519Identity, []age.Recipient) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	keys, _, err := ParseRecipients("# Audrey\n" + id.Recipient().String() + "\n")
	if err != nil {
		t.Fatal(err)
	}
	return id, keys
}

func made(t testing.TB, keys []age.Recipient, parts ...string) []byte {
	t.Helper()
	all := []byte(Magic)
	for _, p := range parts {
		part, err := Part(keys, []byte(p))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, part...)
	}
	return all
}

func TestWhatIsEncryptedIsRead(t *testing.T) {
	t.Parallel()
	id, keys := auditor(t)
	all := made(t, keys, "one\n", "two\n")
	var out bytes.Buffer
	if err := Decrypt(&out, bytes.NewReader(all), id); err != nil || out.String() != "one\ntwo\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if bytes.Contains(all, []byte("one")) {
		t.Error("it is not encrypted")
	}
	other, _ := auditor(t)
	if err := Decrypt(io.Discard, bytes.NewReader(all), other); err == nil {
		t.Error("another key opens it")
	}
}

// A host lost power: what was whole is read, and what was not is cut off.
func TestWhatIsCutOffIsReadUpToThere(t *testing.T) {
	t.Parallel()
	id, keys := auditor(t)
	all := made(t, keys, "one\n", "two\n")
	first := int64(len(made(t, keys, "one\n")))
	for _, cut := range []int64{1, 3, 4, 40, int64(len(all)) - 1 - first} {
		text := all[:first+cut]
		var out bytes.Buffer
		if err := Decrypt(&out, bytes.NewReader(text), id); !errors.Is(err, ErrForm) || out.String() != "one\n" {
			t.Errorf("cut at %d: %q, %v", cut, out.String(), err)
		}
		if whole, err := Whole(bytes.NewReader(text)); err != nil || whole != first {
			t.Errorf("cut at %d: %d bytes are whole, %v, want %d", cut, whole, err, first)
		}
	}
}

func TestGarbageIsNoRecording(t *testing.T) {
	t.Parallel()
	id, keys := auditor(t)
	changed := made(t, keys, "one\n")
	changed[len(changed)-1] ^= 1
	for what, text := range map[string]string{
		"nothing": "", "another": "age-encryption.org/v1\n", "a huge part": Magic + "\xff\xff\xff\xff", "a changed byte": string(changed),
		"a part that is no age file": Magic + "\x00\x00\x00\x04abcd",
	} {
		if err := Decrypt(io.Discard, strings.NewReader(text), id); err == nil {
			t.Errorf("%s: it was read", what)
		}
	}
	if _, err := Part(keys, make([]byte, MaxPlain+1)); err == nil {
		t.Error("a part takes anything")
	}
}

func TestRecipients(t *testing.T) {
	t.Parallel()
	id, _ := auditor(t)
	for what, text := range map[string]string{
		"none": "# nobody\n\n", "a private key": id.String(), "no key": "age1xyz", "too many": strings.Repeat(id.Recipient().String()+"\n", MaxKeys+1),
	} {
		_, _, err := ParseRecipients(text)
		if err == nil {
			t.Errorf("%s: it was taken", what)
		} else if strings.Contains(err.Error(), id.String()) {
			t.Errorf("%s: the private key is repeated", what)
		}
	}
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if _, lines, err := ParseRecipients(hybrid.Recipient().String() + "\n"); err != nil || len(lines) != 1 {
		t.Errorf("a key for after quantum computers: %q, %v", lines, err)
	}
	if _, _, err := ParseRecipients(id.Recipient().String() + "\n" + hybrid.Recipient().String() + "\n"); err == nil {
		t.Error("keys that age does not mix were taken")
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	for _, e := range []Event{{1500 * time.Millisecond, Output, "é\x1b[2J\"\\\x00"}, {0, Resize, "80x24"}, Bytes(time.Second, Input, []byte{0xff, 0})} {
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var again Event
		if err := json.Unmarshal(text, &again); err != nil || again != e {
			t.Errorf("%s is %+v, %v", text, again, err)
		}
	}
	if e := Bytes(0, Output, []byte("a\x00")); e.Code != OutputBytes {
		t.Errorf("%+v", e)
	}
	if e := Bytes(0, Input, []byte{0xff, 0}); e.Code != InputBytes || e.Data != "/wA=" {
		t.Errorf("%+v", e)
	}
	for _, text := range []string{`[]`, `[1,"o"]`, `[-1,"o",""]`, `[1e99,"o",""]`, `["1","o",""]`, `{}`, `[1,2,3]`} {
		if json.Unmarshal([]byte(text), new(Event)) == nil {
			t.Errorf("%s was read", text)
		}
	}
}

func TestACharacterInTwoPiecesIsOne(t *testing.T) {
	t.Parallel()
	var text Text
	got := ""
	for _, piece := range []string{"a\xe2", "\x82", "\xac b\xff", "\xf0\x9f", "x"} {
		got += text.Add([]byte(piece))
	}
	if got != "a€ b\ufffd\ufffd\ufffdx" {
		t.Errorf("%q", got)
	}
}

func TestACastIsReadLineByLine(t *testing.T) {
	t.Parallel()
	c, err := ReadCast(strings.NewReader(`{"version":2,"width":80,"height":24,"timestamp":1,"sallyport":{"login":"dba","serial":"7"}}` + "\n[0.1,\"o\",\"x\"]\n\n[0.2,\"zz\",\"\"]\n[1,2]\n"))
	if err != nil || c.Header.Sallyport.Login != "dba" || c.Header.Sallyport.Serial != 7 {
		t.Fatalf("%+v, %v", c, err)
	}
	if e, err := c.Next(); err != nil || e.Data != "x" || e.At != 100*time.Millisecond {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := c.Next(); err != nil || e.Code != "zz" {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := c.Next(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("garbage: %v", err)
	}
	if _, err := ReadCast(strings.NewReader(strings.Repeat("x", maxLine+1))); err == nil {
		t.Error("a line of any length is read")
	}
}
