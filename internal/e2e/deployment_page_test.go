package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/api"
	trust "sallyport/approvals/policy"
	"sallyport/internal/agenttest"
	"sallyport/internal/clock"
)

// An approver, whose decision the provider signs, and an operator follow a deployment in their browsers: what happens appears
// by itself, and what is being written stays.
func TestADeploymentInTheBrowser(t *testing.T) {
	t.Parallel()
	i := agenttest.New(t, trust.GitHub, clock.System)
	roots := filepath.Join(t.TempDir(), "issuer.pem")
	if err := os.WriteFile(roots, i.Certificate(), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, phonePolicy+"agents:\n"+i.Entry("ci")+strings.Replace(phoneDeployments, "    approvals:", "    assurance: provider\n    approvals:", 1), "SSL_CERT_FILE="+roots)
	h.signIn(operator).call(http.MethodPost, "/hosts", api.HostInput{Name: "web-1", Address: "web-1", Labels: map[string]string{"class": "web"}, Logins: []string{"web"}}, nil, http.StatusCreated)
	p := h.deploy(t, i, "web", "sha256:"+strings.Repeat("11", 32))
	path := "/deployments/" + p.id

	op := h.at(operator)
	op.open(path)
	op.read(".banner", "It waits for approval")
	op.fill("#reason", "because")
	ada := h.at(approver)
	ada.open("/")
	ada.read("#live", "Deployments that wait for me")
	ada.click(`a.row[href="` + path + `"]`)
	ada.read(".banner", "Your decision: may it start?")
	ada.fill("textarea", "looks good")
	ada.click(`button[value="approve"]`)
	passBy(ada, approver)
	ada.read(".banner", "Batch 1 is next")
	ada.read("#approvals", "looks good")
	ada.click("#terms summary")
	ada.read("#terms", "signed by the identity provider")

	op.read(".banner", "Batch 1 is next")
	p.send("POST", "/"+p.id+"/batches/1?wait=60s", api.BatchInput{Epoch: p.epoch}, nil, http.StatusOK)
	op.read(".banner", "Batch 1 is open: 0 of 1 host reported")
	ada.read(".banner", "Batch 1 is open: 0 of 1 host reported")
	op.read("#timeline", "batch 1 is open")
	op.click(`button[value="stop"]`) // for the reason that was written before all this
	op.read(".banner", "because")
	ada.read(".page-head .badge", "held")
	op.fill("#reason", "all is well again")
	op.click(`button[value="resume"]`)
	ada.read("#timeline", "all is well again")
}
