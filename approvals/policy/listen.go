package policy

import (
	"fmt"
	"regexp"
	"strconv"

	"k8s.io/apimachinery/pkg/labels"

	"sallyport/api/hostapi"
)

// Listening is what may listen on a class of hosts, beside sshd.
type Listening struct {
	Where labels.Selector
	Ports []hostapi.Listener
}

// Listen is what may listen on a host with the labels, beside sshd on its own port: by
// the first entry that fits, and nothing if none does.
func (p *Policy) Listen(host map[string]string) []hostapi.Listener {
	for _, l := range p.Listening {
		if l.Where.Matches(labels.Set(host)) {
			return l.Ports
		}
	}
	return []hostapi.Listener{}
}

var portForm = regexp.MustCompile(`^(tcp|udp)/([1-9][0-9]{0,4})( /[!-~]{1,200})?$`)

func (p *reader) listening(list []listen) ([]Listening, error) {
	if len(list) > MaxListens {
		return nil, p.fault("listen", "%d entries are more than %d", len(list), MaxListens)
	}
	var out []Listening
	for i, l := range list {
		path := fmt.Sprintf("listen[%d]", i)
		where, err := p.selector(path+".where", l.Where)
		if err != nil {
			return nil, err
		}
		if len(l.Ports) > MaxPorts {
			return nil, p.fault(path+".ports", "%d ports are more than %d", len(l.Ports), MaxPorts)
		}
		ports := make([]hostapi.Listener, len(l.Ports))
		for j, text := range l.Ports {
			m := portForm.FindStringSubmatch(text)
			var port uint64
			if m != nil {
				port, err = strconv.ParseUint(m[2], 10, 16)
			}
			if m == nil || err != nil {
				return nil, p.fault(fmt.Sprintf("%s.ports[%d]", path, j), "%q is not like tcp/5432 or tcp/6379 /usr/bin/redis-server", text)
			}
			ports[j] = hostapi.Listener{Network: m[1], Port: uint16(port)}
			if m[3] != "" {
				ports[j].Program = m[3][1:]
			}
		}
		out = append(out, Listening{Where: where, Ports: ports})
	}
	return out, nil
}
