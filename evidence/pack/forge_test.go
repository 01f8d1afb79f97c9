package pack_test

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash/crc32"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"sallyport/audit/vouch"
)

// pack puts members into an archive of the form that a pack has.
func repack(t testing.TB, members []member) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range members {
		var packed bytes.Buffer
		if strings.HasSuffix(m.name, "/") {
			_, err := z.CreateRaw(&zip.FileHeader{Name: m.name})
			must(t, err)
			continue
		}
		w, err := flate.NewWriter(&packed, flate.BestSpeed)
		must(t, err)
		_, err = w.Write(m.text)
		must(t, err)
		must(t, w.Close())
		raw, err := z.CreateRaw(&zip.FileHeader{Name: m.name, Method: zip.Deflate, CRC32: crc32.ChecksumIEEE(m.text),
			CompressedSize64: uint64(packed.Len()), UncompressedSize64: uint64(len(m.text))})
		must(t, err)
		_, err = raw.Write(packed.Bytes())
		must(t, err)
	}
	must(t, z.Close())
	return b.Bytes()
}

// change packs an archive anew with one file's contents changed.
func change(t testing.TB, archive []byte, name string, edit func([]byte) []byte) []byte {
	t.Helper()
	members, found := unpack(t, archive), false
	for i := range members {
		if members[i].name == name {
			members[i].text, found = edit(members[i].text), true
		}
	}
	if !found {
		t.Fatalf("there is no %s", name)
	}
	return repack(t, members)
}

// without packs an archive anew without some files.
func without(t testing.TB, archive []byte, gone func(name string) bool) []byte {
	t.Helper()
	var kept []member
	for _, m := range unpack(t, archive) {
		if !gone(m.name) {
			kept = append(kept, m)
		}
	}
	return repack(t, kept)
}

// with packs an archive anew with a file more.
func with(t testing.TB, archive []byte, name string, text []byte) []byte {
	t.Helper()
	return repack(t, append(unpack(t, archive), member{name, text}))
}

// resign makes the manifest fit the archive's files again, and signs it with a key.
func resign(t testing.TB, archive []byte, key note.Signer) []byte {
	t.Helper()
	members := unpack(t, archive)
	texts := map[string][]byte{}
	for _, m := range members {
		texts[m.name] = m.text
	}
	var manifest map[string]any
	must(t, json.Unmarshal(texts["manifest.json"], &manifest))
	// The manifest has one form, so it is changed as text.
	text := texts["manifest.json"]
	for _, f := range manifest["files"].([]any) {
		f := f.(map[string]any)
		now := sha256.Sum256(texts[f["name"].(string)])
		text = bytes.Replace(text, []byte(f["sha256"].(string)), []byte(hex.EncodeToString(now[:])), 1)
	}
	sum := sha256.Sum256(text)
	signed, err := vouch.Sign("evidence-pack/1", hex.EncodeToString(sum[:]), key)
	must(t, err)
	for i := range members {
		switch members[i].name {
		case "manifest.json":
			members[i].text = text
		case "manifest.note":
			members[i].text = signed
		}
	}
	return repack(t, members)
}

func must(t testing.TB, err error) {
	if err != nil {
		t.Helper()
		t.Fatal(err)
	}
}
