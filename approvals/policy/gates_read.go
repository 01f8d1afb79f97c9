package policy

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

func (p *reader) gate(path string, g gate) (out Gate, err error) {
	out.Name = g.Name
	if !nameForm.MatchString(g.Name) {
		return out, p.fault(path+".name", "%q is not a name of at most 63 lower-case letters, digits and hyphens", g.Name)
	}
	kinds := 0
	if g.Reported != nil {
		kinds, out.Kind = kinds+1, ReportedGate
		if out.OK, err = p.share(path+".reported.ok", g.Reported.OK, 1); err != nil {
			return out, err
		}
	}
	if g.HTTP != nil {
		kinds, out.Kind = kinds+1, HTTPGate
		if err := p.httpGate(path+".http", *g.HTTP, &out); err != nil {
			return out, err
		}
	}
	if g.Prometheus != nil {
		kinds, out.Kind = kinds+1, PrometheusGate
		if err := p.prometheusGate(path+".prometheus", *g.Prometheus, &out); err != nil {
			return out, err
		}
	}
	if g.Posture != nil {
		kinds, out.Kind = kinds+1, PostureGate
		if len(g.Posture.Ports) > MaxGatePorts {
			return out, p.fault(path+".posture.ports", "%d ports are more than %d", len(g.Posture.Ports), MaxGatePorts)
		}
		for i, port := range g.Posture.Ports {
			if port < 1 || port > 65535 {
				return out, p.fault(fmt.Sprintf("%s.posture.ports[%d]", path, i), "%d is not a port", port)
			}
		}
		out.Ports = g.Posture.Ports
	}
	if g.Approval != nil {
		kinds, out.Kind = kinds+1, ApprovalGate
		st, err := p.stage(path+".approval.slots", *g.Approval)
		if err != nil {
			return out, err
		}
		out.Stages = []Stage{st}
	}
	if kinds != 1 {
		return out, p.fault(path, "a gate is one of reported, http, prometheus, posture and approval")
	}
	return out, p.measuring(path, g, &out)
}

// measuring reads how a gate is measured.
func (p *reader) measuring(path string, g gate, out *Gate) (err error) {
	for key, set := range map[string]bool{"every": g.Every != "", "times": g.Times != 0, "failures": g.Failures != 0,
		"within": g.Within != "" && out.Kind != ApprovalGate} {
		if set && !out.Kind.Measured() {
			return p.fault(path+"."+key, "nothing is measured again and again: only http, prometheus and posture have it")
		}
	}
	fallback := DefaultGateWithin
	if out.Kind == ApprovalGate {
		fallback = MaxGateWithin
	}
	if out.Kind == ReportedGate {
		return nil
	}
	if out.Within, err = p.duration(path+".within", g.Within, fallback, MinGateEvery, MaxGateWithin); err != nil || out.Kind == ApprovalGate {
		return err
	}
	if out.Every, err = p.duration(path+".every", g.Every, min(DefaultGateEvery, out.Within), MinGateEvery, out.Within); err != nil {
		return err
	}
	if out.Times, out.Failures = max(g.Times, 1), g.Failures; g.Times < 0 || g.Times > MaxGateTimes || g.Failures < 0 || g.Failures > MaxGateTimes {
		return p.fault(path, "times and failures are at most %d", MaxGateTimes)
	}
	if time.Duration(out.Times-1)*out.Every > out.Within {
		return p.fault(path+".within", "%d times, %s apart, take longer than %s", out.Times, out.Every, out.Within)
	}
	return nil
}

func (p *reader) httpGate(path string, g httpGate, out *Gate) (err error) {
	if err := p.reach(path, g.URL, "{host}", g.Reach, out); err != nil {
		return err
	}
	if out.Status = g.Status; g.Status == 0 {
		out.Status = 200
	}
	if out.Status < 100 || out.Status > 599 {
		return p.fault(path+".status", "%d is not a status of HTTP", out.Status)
	}
	if len(g.Contains) > 255 {
		return p.fault(path+".contains", "is longer than 255 bytes")
	}
	out.Contains = g.Contains
	return nil
}

func (p *reader) prometheusGate(path string, g prometheusGate, out *Gate) error {
	if err := p.reach(path, g.URL, "", g.Reach, out); err != nil {
		return err
	}
	if g.Query == "" || len(g.Query) > MaxQuery {
		return p.fault(path+".query", "a query has 1 to %d bytes", MaxQuery)
	}
	out.Query = g.Query
	m := comparisonForm.FindStringSubmatch(g.Is)
	if m == nil {
		return p.fault(path+".is", "%q is not a comparison such as '< 0.01'", g.Is)
	}
	value, err := strconv.ParseFloat(m[2], 64)
	if err != nil || math.IsInf(value, 0) {
		return p.fault(path+".is", "%q is not a number", m[2])
	}
	out.Is = Comparison{m[1], value}
	return nil
}

// reach reads where a gate looks. What is not public is reached only where the document
// names it, and without TLS only there: nobody else could answer.
func (p *reader) reach(path, text, stands string, blocks []string, out *Gate) error {
	probe := text
	if stands != "" {
		probe = strings.ReplaceAll(text, stands, "host-1")
	}
	u, err := url.Parse(probe)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || strings.ContainsAny(probe, "{} ") || len(text) > 1000 ||
		u.Scheme != "https" && u.Scheme != "http" {
		return p.fault(path+".url", "%q is not a URL such as https://example.com/healthz", text)
	}
	if u.Scheme == "http" && len(blocks) == 0 {
		return p.fault(path+".url", "an answer without TLS proves nothing unless reach says which addresses it may come from")
	}
	list, err := p.cidrs(path+".reach", blocks)
	if err != nil {
		return err
	}
	for _, s := range list {
		out.Reach = append(out.Reach, netip.MustParsePrefix(s))
	}
	out.URL = text
	return nil
}
