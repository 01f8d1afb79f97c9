// Package checkpoint writes and reads signed tree heads: notes whose text is the
// log's origin, the tree's size and its root hash (c2sp.org/tlog-checkpoint,
// c2sp.org/signed-note). It is pure, for the broker and for verifiers alike.
package checkpoint

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxSize is the most leaves that a tree may have: far more than any log, and few
// enough that the arithmetic of golang.org/x/mod/sumdb/tlog comes to an end. Beyond
// 2^62 it does not: whoever has a log's key could hang everybody who verifies.
const MaxSize = 1 << 60

// Sign returns the checkpoint of the tree. The signer's name is the origin.
func Sign(tree tlog.Tree, signer note.Signer) ([]byte, error) {
	msg, err := note.Sign(&note.Note{Text: text(signer.Name(), tree)}, signer)
	if err != nil {
		return nil, fmt.Errorf("signing the checkpoint of size %d: %w", tree.N, err)
	}
	return msg, nil
}

// Open returns the tree that a checkpoint is about, if the verifier's key signed
// it under the verifier's name. Signatures by other keys are ignored; extension
// lines, which no checkpoint of Sallyport has, are refused.
func Open(msg []byte, verifier note.Verifier) (tlog.Tree, error) {
	n, err := note.Open(msg, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("checkpoint: %w", err)
	}
	tree, err := parse(n.Text)
	if err != nil {
		return tlog.Tree{}, err
	}
	if n.Text != text(verifier.Name(), tree) {
		return tlog.Tree{}, errors.New("checkpoint: not of this log, or not in its only form")
	}
	return tree, nil
}

func text(origin string, tree tlog.Tree) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, tree.N, tree.Hash)
}

// parse is lenient: Open compares what it read with the only right form.
func parse(text string) (tlog.Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 {
		return tlog.Tree{}, errors.New("checkpoint: text is not three lines")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || size > MaxSize {
		return tlog.Tree{}, errors.New("checkpoint: the second line is not a size")
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return tlog.Tree{}, errors.New("checkpoint: the third line is not a hash")
	}
	return tlog.Tree{N: size, Hash: tlog.Hash(root)}, nil
}
