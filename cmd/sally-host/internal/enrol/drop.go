package enrol

import (
	"fmt"
	"strings"

	"sallyport/cmd/sally-host/internal/place"
)

// DropIn is the file with our settings for sshd. Its name puts it before those that
// distributions and cloud images bring (50-cloud-init.conf, 50-redhat.conf): sshd takes
// the first value that it finds.
const DropIn = "/etc/ssh/sshd_config.d/00-sallyport.conf"

// Version is that of OpenSSH.
type Version struct{ Major, Minor int }

func (v Version) before(major, minor int) bool {
	return v.Major < major || v.Major == major && v.Minor < minor
}

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Drop says what settings sshd is to have.
type Drop struct {
	Version Version
	Root    bool // root is one of the logins
	Closed  bool // there is no other way in
}

// setting is a keyword and its value, and what sshd -T says for it if that is not the
// same in lower case.
type setting struct {
	keyword, value string
	global         bool // cannot stand in a Match block
}

// settings are those of sshd_config(5), in order.
func (d Drop) settings() []setting {
	here := place.Here
	list := []setting{
		{"TrustedUserCAKeys", here.UserCA(), false},
		{"AuthorizedPrincipalsFile", "none", false}, // what is in one would pass without a question
		{"AuthorizedPrincipalsCommand", place.Program + " principals %u %k", false},
		{"AuthorizedPrincipalsCommandUser", place.Account, false},
		{"PubkeyAuthentication", "yes", false},
		{"LogLevel", "VERBOSE", false},
		{"HostCertificate", here.HostCert(), true},
		{"UsePAM", "yes", true}, // sessions are seen by it
	}
	root := "no"
	if d.Root {
		root = "prohibit-password"
	}
	if !d.Closed {
		if d.Root {
			list = append(list, setting{"PermitRootLogin", root, false})
		}
		return list
	}
	list = append(list,
		setting{"AuthorizedKeysFile", "none", false}, // or else whoever was in plants a key
		setting{"AuthorizedKeysCommand", "none", false},
		setting{"AuthenticationMethods", "publickey", false},
		setting{"PasswordAuthentication", "no", false},
		setting{"KbdInteractiveAuthentication", "no", false},
		setting{"HostbasedAuthentication", "no", false},
		setting{"PermitRootLogin", root, false},
		setting{"PermitUserRC", "no", false},
		setting{"PermitUserEnvironment", "no", true},
		setting{"LoginGraceTime", "30", true},
	)
	if d.Version.before(8, 7) { // where it is a setting of its own
		list = append(list, setting{"ChallengeResponseAuthentication", "no", true})
	}
	return list
}

const head = "# Written by sally-host enroll, and again whenever it runs; sally-host unenroll takes it away.\n"

// Text is the file. What may stand in a Match block stands in one as well: sshd takes
// the first block that fits, so that no block further down opens anything.
func (d Drop) Text() string {
	var b strings.Builder
	b.WriteString(head)
	if d.Closed {
		b.WriteString("# Certificates of Sallyport open this host, and nothing else does.\n")
	} else {
		b.WriteString("# Certificates of Sallyport open this host, beside whatever else does.\n")
	}
	for _, s := range d.settings() {
		fmt.Fprintf(&b, "%s %s\n", s.keyword, s.value)
	}
	b.WriteString("\nMatch all\n")
	for _, s := range d.settings() {
		if !s.global {
			fmt.Fprintf(&b, "\t%s %s\n", s.keyword, s.value)
		}
	}
	return b.String()
}

// check compares what is in effect with what should be.
func (d Drop) check(e Effective) error {
	for _, s := range d.settings() {
		keyword, want := strings.ToLower(s.keyword), s.value
		switch keyword {
		case "challengeresponseauthentication":
			continue // an alias for most versions
		case "permitrootlogin":
			if e.one(keyword) == "without-password" { // what sshd calls it
				want = "without-password"
			}
		}
		got, known := e[keyword]
		if !known && keyword == "usepam" {
			return fmt.Errorf("this sshd has no PAM, by which sessions are seen")
		}
		if len(got) == 0 || got[0] != want {
			return fmt.Errorf("%s is %q in effect, not %q: look for a file that comes before %s, or a Match block before its own", s.keyword, strings.Join(got, " "), want, DropIn)
		}
	}
	return nil
}
