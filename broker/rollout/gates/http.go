package gates

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"sallyport/approvals/policy"
	"sallyport/broker/rollout/machine"
	"sallyport/broker/rollout/plan"
)

// http asks once, or each host where the URL names them. An answer with another status
// or another text is a failure, and no answer is one too: a service that does not answer
// is not healthy. That the broker may not call the address is nobody's failure.
func (p *Prober) http(ctx context.Context, g plan.Gate, about About, reach []netip.Prefix) (machine.Verdict, string) {
	t := p.transport(reach)
	defer t.CloseIdleConnections()
	if !strings.Contains(g.URL, "{host}") {
		return ask(ctx, client(t), g, g.URL)
	}
	type answer struct {
		v   machine.Verdict
		why string
	}
	answers := make([]answer, len(about.Hosts))
	var all sync.WaitGroup
	slots := make(chan struct{}, MaxAtOnce)
	for i, h := range about.Hosts {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			v, why := ask(ctx, client(t), g, strings.ReplaceAll(g.URL, "{host}", h.Name))
			answers[i] = answer{v, h.Name + ": " + why}
		})
	}
	all.Wait()
	worst := answer{machine.Pass, hosts(len(about.Hosts), "answers as it must", "answer as they must")}
	for _, a := range answers {
		if a.v == machine.NoPass || a.v == machine.Unclear && worst.v == machine.Pass {
			worst = a
		}
		if worst.v == machine.NoPass {
			break
		}
	}
	return worst.v, worst.why
}

func ask(ctx context.Context, c *http.Client, g plan.Gate, to string) (machine.Verdict, string) {
	status, text, err := get(ctx, c, to, nil)
	switch {
	case errors.Is(err, errForbidden):
		return machine.Unclear, "the address is not one that the broker may call"
	case err != nil:
		return machine.NoPass, "no answer"
	case status != g.Status:
		return machine.NoPass, fmt.Sprintf("the answer's status is %d, not %d", status, g.Status)
	case !bytes.Contains(text, []byte(g.Contains)):
		return machine.NoPass, "the answer does not contain what it must"
	}
	return machine.Pass, fmt.Sprintf("status %d", status)
}

// errForbidden says that the address is neither public nor in the gate's reach.
var errForbidden = errors.New("the address may not be called")

// get reads one answer, up to the limit. The error tells nobody what is inside the
// network: only whether it was allowed.
func get(ctx context.Context, c *http.Client, to string, query url.Values) (status int, text []byte, err error) {
	method, body := http.MethodGet, io.Reader(nil)
	if query != nil {
		method, body = http.MethodPost, strings.NewReader(query.Encode())
	}
	r, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("User-Agent", "Sallyport")
	if query != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	answer, err := c.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	text, err = io.ReadAll(io.LimitReader(answer.Body, MaxAnswer))
	return answer.StatusCode, text, err
}

// answer is Prometheus' (https://prometheus.io/docs/prometheus/latest/querying/api/).
type answer struct {
	Status string `json:"status"`
	Data   struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	} `json:"data"`
}

// prometheus runs the query once. It passes if there is data, and every sample is as it
// must be; it fails if some sample is not. All else is inconclusive: an error, an empty
// result, NaN, a result that was cut off.
func (p *Prober) prometheus(ctx context.Context, g plan.Gate, about About, reach []netip.Prefix) (machine.Verdict, string) {
	t := p.transport(reach)
	defer t.CloseIdleConnections()
	status, text, err := get(ctx, client(t), strings.TrimRight(g.URL, "/")+"/api/v1/query", url.Values{"query": {fill(g.Query, about)}})
	switch {
	case errors.Is(err, errForbidden):
		return machine.Unclear, "the address is not one that the broker may call"
	case err != nil:
		return machine.Unclear, "Prometheus does not answer"
	case status != http.StatusOK || len(text) >= MaxAnswer:
		return machine.Unclear, fmt.Sprintf("Prometheus answers with status %d, %d bytes", status, len(text))
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil || a.Status != "success" {
		return machine.Unclear, errUnread.Error()
	}
	values, err := a.values()
	if err != nil {
		return machine.Unclear, err.Error()
	}
	if len(values) == 0 {
		return machine.Unclear, "the query has no data"
	}
	op, number, _ := strings.Cut(g.Is, " ")
	limit, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return machine.Unclear, "the gate's terms cannot be read"
	}
	must, unclear := policy.Comparison{Op: op, Value: limit}, false
	for _, v := range values {
		switch {
		case v != v:
			unclear = true
		case !must.Holds(v):
			return machine.NoPass, fmt.Sprintf("%g is not %s", v, g.Is)
		}
	}
	if unclear {
		return machine.Unclear, "the query gives NaN"
	}
	return machine.Pass, fmt.Sprintf("%g is %s", values[0], g.Is)
}

var errUnread = errors.New("the answer of Prometheus cannot be read")

// values are the samples of an instant vector or a scalar.
func (a answer) values() ([]float64, error) {
	var samples [][2]any
	switch a.Data.Type {
	case "vector":
		var vector []struct {
			Value [2]any `json:"value"`
		}
		if err := json.Unmarshal(a.Data.Result, &vector); err != nil {
			return nil, errUnread
		}
		for _, s := range vector {
			samples = append(samples, s.Value)
		}
	case "scalar":
		var one [2]any
		if err := json.Unmarshal(a.Data.Result, &one); err != nil {
			return nil, errUnread
		}
		samples = append(samples, one)
	default:
		return nil, fmt.Errorf("the query gives a %q, neither vector nor scalar", a.Data.Type)
	}
	values := make([]float64, len(samples))
	for i, s := range samples {
		text, ok := s[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if !ok || err != nil {
			return nil, errors.New("a sample is no number")
		}
		values[i] = v
	}
	return values, nil
}
