// Command sally-host will be the helper on target hosts: enrol them, answer
// sshd's principals question, report sessions and posture. It cannot do any of
// that yet and says so, rather than pretend. Hosts work without it: sshd reads
// the broker's CA key and one principals file for each login.
package main

import (
	"fmt"
	"os"
)

const text = `sally-host: enrolment is not available yet.

Stock sshd needs no helper. An operator registers the host with Sallyport, and
on the host, as root:

 1. Trust the broker's CA, and nothing else:

      mkdir -p /etc/ssh/sallyport/principals
      curl -fsS https://YOUR-BROKER/ssh/ca.pub > /etc/ssh/sallyport/user_ca.pub

 2. For every login that may be asked for, name the one principal that opens it,
    in a file that only root can write. HOST-ID is what sally hosts shows:

      echo 'LOGIN@HOST-ID' > /etc/ssh/sallyport/principals/LOGIN

 3. Put the host's certificate, which the operator gets from the broker, beside
    its key, and these lines at the top of /etc/ssh/sshd_config:

      TrustedUserCAKeys /etc/ssh/sallyport/user_ca.pub
      AuthorizedPrincipalsFile /etc/ssh/sallyport/principals/%u
      AuthorizedKeysFile none
      AuthenticationMethods publickey
      PasswordAuthentication no
      KbdInteractiveAuthentication no
      HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub
      PermitUserRC no
      LogLevel VERBOSE

 4. Check with sshd -t, keep a shell open, and reload sshd.
`

func main() {
	fmt.Fprint(os.Stderr, text)
	os.Exit(1)
}
