package pages

import (
	"html"
	"io"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/approvals"
	"sallyport/internal/clock"
)

// selected finds the first of the hosts that are asked for, and all of them.
func (h *house) selected(in api.RequestInput) (first api.Host, all []api.RequestHost, err error) {
	if in.Host != "" {
		first, err = h.find(in.Host)
		return first, []api.RequestHost{{ID: first.ID, Name: first.Name}}, err
	}
	for _, x := range h.hosts {
		fits := true
		for label, value := range in.Selector {
			fits = fits && x.Labels[label] == value
		}
		if !fits {
			continue
		}
		if all = append(all, api.RequestHost{ID: x.ID, Name: x.Name}); len(all) == 1 {
			first = x
		}
	}
	if len(all) == 0 {
		err = approvals.ErrUnknownHost
	}
	return first, all, err
}

// Several hosts by their labels, without a script: each step names every one.
func TestAskForSeveralHosts(t *testing.T) {
	t.Parallel()
	h := newHouse(clock.System)
	server := httptest.NewServer(doors(h))
	t.Cleanup(server.Close)
	erin, ada := browse(t, server.URL, "engineer"), browse(t, server.URL, "approver")
	const prod = "payments-replica-3.eu-west"
	erin.open("/requests/new?selector=class%3Ddatabase&login=dba&ticket=INC-7&reason=rotate+the+passwords")
	contains(t, erin.page, `value="several" checked`, `value="class=database"`, "2 hosts", prod, "Ada Approver")
	fill := url.Values{"reason": {"rotate the passwords"}} // the browser of this test sends no text area by itself
	erin.press(">Preview</button>", fill)
	contains(t, erin.page, "Send this request?", "2 hosts", "db-1", prod, "asked for by class=database", "rotate the passwords")
	erin.press(">Change something</button>", nil)
	contains(t, erin.page, `value="several" checked`, `value="class=database"`, `id="login" name="login" value="dba"`)
	erin.press(">Preview</button>", fill)
	erin.press(">Send request</button>", nil)
	asked := h.inputs[len(h.inputs)-1].(api.RequestInput)
	if want := (api.RequestInput{Selector: map[string]string{"class": "database"}, Login: "dba", Reason: "rotate the passwords", Ticket: "INC-7"}); !reflect.DeepEqual(asked, want) {
		t.Errorf("asked for %+v, want %+v", asked, want)
	}
	request := h.asked[0].ID
	contains(t, erin.page, "Waiting for approval", "and 1 more", prod)

	for _, page := range []string{"/approvals", "/requests/" + request, "/requests/" + request + "/decide?verdict=deny"} {
		ada.open(page)
		contains(t, ada.page, "2 hosts", "<li>db-1</li>", "<li>"+prod+"</li>")
	}

	end := h.clock.Now().Add(1 << 40)
	h.asked[0].State, h.asked[0].StartsAt, h.asked[0].EndsAt = api.Active, &h.asked[0].CreatedAt, &end
	h.asked[0].Hosts[0].Why = "the host has been removed since you asked for it"
	h.asked[0].Hosts[1].Certificates = 1
	h.asked[0].Certificates = []api.CertificateInfo{{Serial: 7, Principal: "dba@" + h.asked[0].Hosts[1].ID}}
	erin.open("/requests/" + request)
	contains(t, erin.page, "sally ssh dba@"+prod, "1 certificate<", "db-1: the host has been removed", "<td>"+prod+"</td>")
	if strings.Contains(erin.page, "sally ssh dba@db-1") {
		t.Error("the page names a command that cannot work")
	}
	erin.open("/")
	contains(t, erin.page, "in the same way, to "+prod)

	h.asked[0].State, h.asked[0].EndReason = api.Ended, "time"
	erin.open("/requests/" + request)
	contains(t, erin.page, "/requests/new?selector=class%3ddatabase&login=dba")
}

// What is wrong with the labels is said beside them.
func TestSeveralHostsAreAskedForWrongly(t *testing.T) {
	t.Parallel()
	h := newHouse(clock.System)
	server := httptest.NewServer(doors(h))
	t.Cleanup(server.Close)
	erin := browse(t, server.URL, "engineer")
	for selector, want := range map[string]struct {
		status int
		says   string
	}{
		"": {422, "is not LABEL=VALUE"}, "database": {422, "is not LABEL=VALUE"}, "class in (database)": {422, "is not LABEL=VALUE"},
		"class=a,class=b": {422, "stands there twice"}, "class=none": {404, "There is no such host"},
	} {
		res, err := erin.http.PostForm(erin.base+"/requests", url.Values{"target": {"several"}, "selector": {selector}, "login": {"dba"}, "step": {"preview"}})
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != want.status {
			t.Errorf("%q: status %d, want %d (%v)", selector, res.StatusCode, want.status, err)
		}
		contains(t, html.UnescapeString(string(page)), want.says, `id="target-fault"`, `aria-invalid="true"`, `value="several" checked`)
	}
	if len(h.asked) > 0 {
		t.Error("something was asked for")
	}
}
