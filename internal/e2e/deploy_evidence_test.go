package e2e

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/audit/cosignature"
	"sallyport/evidence/pack"
)

// deployed is the evidence of all deployments until now, which must verify and have no
// exceptions: the rows of deployments, by their ids, and those of their hosts.
func (h *house) deployed(t testing.TB) (deployments map[string]map[string]string, hosts []map[string]string) {
	t.Helper()
	c := h.signIn(auditor)
	var p api.Pack
	c.call(http.MethodPost, "/audit/packs", api.PackInput{From: "2026-01-01", Seed: "1"}, &p, http.StatusAccepted)
	for deadline := time.Now().Add(time.Minute); p.State != "ready"; time.Sleep(100 * time.Millisecond) {
		c.call(http.MethodGet, "/audit/packs/"+p.ID, nil, &p, http.StatusOK)
		if p.State == "failed" || time.Now().After(deadline) {
			t.Fatalf("the pack is %+v", p)
		}
	}
	_, archive, err := c.send(http.MethodGet, "/audit/packs/"+p.ID+"/download", nil)
	if err != nil {
		t.Fatal(err)
	}
	key := (&client{t: t, url: h.URL, http: plain}).text("/log/vkey")
	trust, err := cosignature.ParsePolicy([]byte("log " + strings.TrimSpace(key) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := pack.Verify(t.Context(), bytes.NewReader(archive), int64(len(archive)), pack.Options{Trust: trust})
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range v.Checks {
		if !check.OK {
			t.Errorf("%s: %s", check.Name, check.Detail)
		}
	}
	for _, x := range table(t, archive, "exceptions.csv") {
		t.Errorf("%s at %s: %s", x["code"], x["index"], x["detail"])
	}
	deployments = map[string]map[string]string{}
	for _, row := range table(t, archive, "populations/deployments.csv") {
		deployments[row["deployment_id"]] = row
	}
	return deployments, table(t, archive, "populations/deployment_hosts.csv")
}

// table are a CSV file's rows, with their columns by name.
func table(t testing.TB, archive []byte, name string) (rows []map[string]string) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := z.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, cells := range all[1:] {
		row := map[string]string{}
		for i, name := range all[0] {
			row[name] = cells[i]
		}
		rows = append(rows, row)
	}
	return rows
}
