// Command interop is the other side of c2sp.org/tlog-witness, as
// github.com/transparency-dev/witness has it, for Sallyport's tests.
//
//	interop serve LOG-VKEY KEY-NAME     a witness; prints its key and its address
//	interop ask URL OLD < CHECKPOINT    a log's client; further arguments are the proof, base64
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"

	cosign "github.com/transparency-dev/formats/note"
	client "github.com/transparency-dev/witness/client/http"
	"github.com/transparency-dev/witness/persistence/inmemory"
	"github.com/transparency-dev/witness/witness"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "serve":
		err = serve(os.Args[2], os.Args[3])
	case len(os.Args) >= 4 && os.Args[1] == "ask":
		err = ask(os.Args[2], os.Args[3], os.Args[4:])
	default:
		err = fmt.Errorf("usage: interop serve LOG-VKEY KEY-NAME | interop ask URL OLD [PROOF...]")
	}
	if err != nil {
		log.Fatal(err)
	}
}

func serve(vkey, name string) error {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	private, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return err
	}
	signer, err := cosign.NewSignerForCosignatureV1(private)
	if err != nil {
		return err
	}
	own, err := cosign.VKeyToCosignatureV1(public)
	if err != nil {
		return err
	}
	w, err := witness.New(context.Background(), witness.Opts{Persistence: inmemory.New(), Signers: []note.Signer{signer},
		VerifierForLog: func(_ context.Context, origin string) (note.Verifier, bool, error) {
			return verifier, origin == verifier.Name(), nil
		}})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("%s\nhttp://%s\n", own, l.Addr())
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", witness.NewHTTPHandler(w).AddCheckpoint)
	return http.Serve(l, mux)
}

func ask(address, old string, proof []string) error {
	root, err := url.Parse(address)
	if err != nil {
		return err
	}
	size, err := strconv.ParseUint(old, 10, 64)
	if err != nil {
		return err
	}
	checkpoint, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var hashes [][]byte
	for _, p := range proof {
		h, err := base64.StdEncoding.DecodeString(p)
		if err != nil {
			return err
		}
		hashes = append(hashes, h)
	}
	sigs, now, err := client.NewWitness(root, http.DefaultClient).Update(context.Background(), size, checkpoint, hashes)
	if err != nil {
		fmt.Printf("refused %d: %v\n", now, err)
		return nil
	}
	os.Stdout.Write(sigs)
	return nil
}
