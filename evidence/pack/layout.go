// Package pack writes and verifies evidence packs: the zip that an auditor takes
// away. It is pure but for the files that it is given: neither database nor
// network, so that `sally audit verify` is the broker's own code and runs anywhere.
//
//	README.html                    one page: period, counts, exceptions, how to verify
//	manifest.json, manifest.note   what the pack is, signed with the log's key
//	log/tile/…                     the log: hash tiles and entry bundles (c2sp.org/tlog-tiles)
//	log/checkpoint                 its signed head, with witnesses' cosignatures
//	log/start-checkpoint           its head when the period began
//	log/consistency-proof          that the one goes on with the other, a hash a line
//	log/trust-policy               how the broker would have them trusted (c2sp.org/tlog-policy)
//	proofs/<index>.tlog-proof      receipts of samples and of emergencies
//	populations/*.csv              what happened, one list for each kind of event; and
//	                               registers, of what all events about a thing come to
//	reconciliation.csv             rows against events: nothing was left out
//	samples.csv                    what to look at, chosen by a seed
//	exceptions.csv                 what to ask about
//	controls.csv                   which list serves which criterion
//	evidence.xlsx                  the same tables for people; never authoritative
//	evidence/policies/<hash>.yaml  documents that the log names by their hash
//	evidence/id-tokens.jsonl       tokens that the log names by their hash
//
// Everything but the last two, which are checked against hashes in the log, is made
// from the log's entries alone, by the same code for writer and verifier (derive).
// So a pack proves that its lists are complete and unaltered relative to the log. It
// does not prove that every way into a host goes through the broker.
//
// The manifest is signed with the log's own key, as a note of package audit/vouch:
// the auditor has that key already and needs no other, a note that vouches cannot
// be taken for a checkpoint, and whoever has the key could make up a whole log
// anyway. A checkpoint kept from last time, and witnesses, are what helps then.
package pack

import (
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Format names the form of a pack, and with it what its lists look like and which
// exceptions are found: a change to package populations, reconcile or controls, or
// to the page, makes another one. A verifier refuses those that it does not know.
const Format = "sallyport.evidence/1"

// The files, besides those with names of their own.
const (
	readmeName      = "README.html"
	manifestName    = "manifest.json"
	noteName        = "manifest.note"
	tileDir         = "log/tile/"
	checkpointName  = "log/checkpoint"
	startName       = "log/start-checkpoint"
	consistencyName = "log/consistency-proof"
	trustName       = "log/trust-policy"
	proofDir        = "proofs/"
	proofExt        = ".tlog-proof"
	populationDir   = "populations/"
	reconcileName   = "reconciliation.csv"
	samplesName     = "samples.csv"
	exceptionsName  = "exceptions.csv"
	controlsName    = "controls.csv"
	workbookName    = "evidence.xlsx"
	policyDir       = "evidence/policies/"
	policyExt       = ".yaml"
	tokensName      = "evidence/id-tokens.jsonl"
)

// Limits on what a verifier reads. A pack that needs more is refused, and says which.
const (
	MaxFiles        = 4 << 20   // in the archive
	MaxTotal        = 1 << 40   // bytes of all files, unpacked
	MaxRatio        = 200       // unpacked to packed, above 64 MB: real packs are below 40
	MaxManifest     = 1 << 20   // bytes
	maxSmall        = 64 << 10  // checkpoints, notes, proofs, trust policies
	maxPolicy       = 4 << 20   // a document, as policy.MaxBytes
	maxTokenLine    = 128 << 10 // of id-tokens.jsonl
	MaxSamples      = 25        // of each list
	maxShown        = 200       // exceptions on the page; all are in the list
	maxSheetRows    = 20_000    // of one list in the workbook
	maxTypes        = 1000      // types of events that are counted by name
	ratioFrom       = 64 << 20
	tileHeight      = 8
	tileWidth       = 1 << tileHeight
	maxBundle       = tileWidth * (2 + 65535)
	maxDigest       = 64 // a SHA-256 in hex
	inFlight        = 24 << 20
	bytesPerEntry   = 8 // of memory for each byte of an entry on its way
	minChunk        = 1 << 20
	proofsAtOnce    = 64
	samplesMethod   = "the rows with the least SHA-256(seed LF list LF index), in hex"
	bundleOverheads = 2
)

// tilePath is a hash tile's name, bundlePath an entry bundle's.
func tilePath(t tlog.Tile) string {
	return tileDir + strings.TrimPrefix(t.Path(), fmt.Sprintf("tile/%d/", tileHeight))
}

func bundlePath(n int64, width int) string {
	t := tlog.Tile{H: tileHeight, L: 0, N: n, W: width}
	return tileDir + "entries/" + strings.TrimPrefix(t.Path(), fmt.Sprintf("tile/%d/0/", tileHeight))
}

func proofPath(index int64) string { return fmt.Sprintf("%s%d%s", proofDir, index, proofExt) }

func policyPath(hash string) string { return policyDir + hash + policyExt }

// widthOf is how many entries the tile n of level 0 has in a tree of the size.
func widthOf(n, size int64) int { return int(min(tileWidth, size-n*tileWidth)) }
