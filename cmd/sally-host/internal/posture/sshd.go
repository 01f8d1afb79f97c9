package posture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sallyport/cmd/sally-host/internal/place"
)

// effective is what sshd would do for one login from one address (sshd -T -C).
type effective struct {
	login, from string
	settings    map[string][]string // by name in lower case
}

// must are the settings that leave certificates as the only way in; the values are those
// that sshd -T prints. Any of several will do.
var must = map[string][]string{
	"authenticationmethods":        {"publickey"},
	"authorizedkeyscommand":        {"none"},
	"authorizedkeysfile":           {"none"},
	"authorizedprincipalscommand":  {place.Program + " principals %u %k"},
	"authorizedprincipalsfile":     {"none"},
	"gssapiauthentication":         {"no", ""},
	"hostbasedauthentication":      {"no"},
	"kbdinteractiveauthentication": {"no"},
	"kerberosauthentication":       {"no", ""},
	"passwordauthentication":       {"no"},
	"permitemptypasswords":         {"no"},
	"permituserenvironment":        {"no"},
	"permituserrc":                 {"no"},
	"pubkeyauthentication":         {"yes"},
	"trustedusercakeys":            {"/etc/ssh/sallyport/user_ca.pub"},
	"usepam":                       {"yes"},
}

// addresses are where somebody might come from, beside those that Match blocks name.
var addresses = []string{"127.0.0.1", "::1", "192.0.2.1", "10.0.0.1"}

// maxQuestions is how many pairs of login and address are asked for.
const maxQuestions = 400

// nobody is a login that no Match block can mean.
const nobody = "sallyport-nobody"

// ask asks sshd for every login and address, once.
func (h *Host) ask(ctx context.Context) ([]effective, error) {
	if h.effective != nil {
		return h.effective, nil
	}
	all, err := h.people()
	if err != nil {
		return nil, err
	}
	logins := append(slices.Clone(h.Settings.Logins), "root", nobody)
	for _, a := range all {
		if a.enters() {
			logins = append(logins, a.name)
		}
	}
	slices.Sort(logins)
	logins = slices.Compact(logins)
	from := append(slices.Clone(addresses), h.matched()...)
	slices.Sort(from)
	from = slices.Compact(from)
	if n := len(logins) * len(from); n > maxQuestions {
		return nil, fmt.Errorf("%d pairs of login and address are more than %d", n, maxQuestions)
	}
	var out []effective
	for _, login := range logins {
		for _, address := range from {
			text, err := h.Run(ctx, "sshd", "-T", "-C", fmt.Sprintf("user=%s,host=%s,addr=%s", login, address, address))
			if err != nil {
				return nil, err
			}
			e := effective{login, address, map[string][]string{}}
			for line := range strings.Lines(string(text)) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
				if _, wanted := must[name]; wanted || name == "port" || name == "pidfile" {
					e.settings[name] = append(e.settings[name], value)
				}
			}
			if len(e.settings["authenticationmethods"]) == 0 {
				return nil, errors.New("sshd did not say what its settings are")
			}
			out = append(out, e)
		}
	}
	h.effective = out
	return out, nil
}

var addressWord = regexp.MustCompile(`[0-9a-fA-F:.]*[0-9a-fA-F][.:][0-9a-fA-F:.]+`)

// matched are the addresses in Match blocks.
func (h *Host) matched() (found []string) {
	for _, file := range h.sshdFiles() {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // sshd itself says what is wrong with it
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(strings.ToLower(line)); len(f) > 1 && f[0] == "match" {
				found = append(found, addressWord.FindAllString(line, -1)...)
			}
		}
	}
	return found
}

// sshdFiles are those that sshd's settings are in: sshd_config, and what it includes
// (sshd_config(5), Include), to the depth that sshd follows.
func (h *Host) sshdFiles() []string {
	files := []string{h.Place.Join("etc/ssh/sshd_config")}
	for depth, at := 0, 0; depth < 16 && at < len(files); depth++ {
		level := files[at:]
		at = len(files)
		for _, file := range level {
			text, err := os.ReadFile(file)
			if err != nil {
				continue // sshd itself says what is wrong with it
			}
			for line := range strings.Lines(string(text)) {
				f := strings.Fields(strings.ReplaceAll(line, "=", " "))
				if len(f) < 2 || !strings.EqualFold(f[0], "include") {
					continue
				}
				for _, pattern := range f[1:] {
					if pattern = strings.Trim(pattern, `"`); !filepath.IsAbs(pattern) {
						pattern = filepath.Join("/etc/ssh", pattern)
					}
					more, _ := filepath.Glob(h.Place.Join(pattern))
					files = append(files, more...)
				}
			}
		}
	}
	return files
}

func (h *Host) lookAtSSHD(ctx context.Context) (findings []string, err error) {
	asked, err := h.ask(ctx)
	if err != nil {
		return nil, err
	}
	wrong := map[string][]string{} // who, by what
	for _, e := range asked {
		for name, allowed := range must {
			if got := strings.Join(e.settings[name], " "); !slices.Contains(allowed, got) {
				what := fmt.Sprintf("%s is %q, not %q", name, got, allowed[0])
				wrong[what] = append(wrong[what], e.login+" from "+e.from)
			}
		}
	}
	for what, who := range wrong {
		switch {
		case len(who) == len(asked):
			findings = append(findings, what)
		case len(who) > 4:
			findings = append(findings, fmt.Sprintf("%s, for %s and others", what, strings.Join(who[:4], ", ")))
		default:
			findings = append(findings, fmt.Sprintf("%s, for %s", what, strings.Join(who, ", ")))
		}
	}
	pam, err := h.Place.ReadAtMost("etc/pam.d/sshd", maxFile)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(strings.Split(string(pam), "\n"), hook) {
		findings = append(findings, "PAM does not tell of sessions (/etc/pam.d/sshd)")
	}
	cas, err := os.ReadFile(h.Place.UserCA())
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(bytes.TrimSpace(cas), []byte(strings.Join(h.Settings.UserCAs, "\n"))) {
		findings = append(findings, "sshd trusts other certificate authorities than the broker named (/etc/ssh/sallyport/user_ca.pub)")
	}
	return findings, nil
}

// hook reports whether a line of PAM's calls us for each session.
func hook(line string) bool {
	f := strings.Fields(line)
	return len(f) > 3 && f[0] == "session" && f[1] == "required" && f[2] == "pam_exec.so" && strings.HasSuffix(line, place.Program+" session")
}

// Files that let somebody in beside the certificate, in a home and on the host.
var (
	inHomes = []string{".ssh/authorized_keys", ".ssh/authorized_keys2", ".ssh/rc", ".ssh/environment", ".shosts", ".rhosts", ".k5login"}
	onHost  = []string{"etc/hosts.equiv", "etc/shosts.equiv", "etc/ssh/sshrc", "etc/ssh/authorized_keys"}
)

func (h *Host) lookAtKeys(ctx context.Context) (findings []string, err error) {
	all, err := h.people()
	if err != nil {
		return nil, err
	}
	files := slices.Clone(onHost)
	for _, a := range all {
		for _, name := range inHomes {
			files = append(files, filepath.Join(a.home, name))
		}
	}
	asked, err := h.ask(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range asked {
		i := slices.IndexFunc(all, func(a account) bool { return a.name == e.login })
		if i < 0 {
			continue
		}
		for _, name := range strings.Fields(strings.Join(e.settings["authorizedkeysfile"], " ")) {
			if name == "none" {
				continue
			}
			name = strings.NewReplacer("%%", "%", "%u", e.login, "%h", all[i].home).Replace(name)
			if !filepath.IsAbs(name) {
				name = filepath.Join(all[i].home, name)
			}
			files = append(files, name)
		}
	}
	slices.Sort(files)
	for _, name := range slices.Compact(files) {
		info, err := os.Stat(h.Place.Join(name))
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) || notDir(err):
		case err != nil:
			return nil, err
		case info.Size() > 0:
			findings = append(findings, "there is "+filepath.Join("/", name))
		}
	}
	return findings, nil
}
