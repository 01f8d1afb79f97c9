package main

// option is one thing that can be set for `sallyportd serve`: as a flag, as an
// environment variable, or as a key of the configuration file.
type option struct {
	name     string // of the flag; the variable is SALLYPORT_NAME, the key has _ for -
	standard string // what holds if nobody sets it
	usage    string // what it is, and whom it trusts
}

// options of serve, in the order of --help. Whatever is added here must change
// something and be tested.
var options = []option{
	{"listen", "127.0.0.1:8080", "Address and port to listen on.\n" +
		"Trusts: whoever can reach it may sign in, read /metrics and the log's checkpoint."},
	{"url", "", "Where people and programs reach the broker, such as https://sallyport.example.com. Required.\n" +
		"Sign-in returns there, and proofs of possession name it. With https, cookies are for https only."},
	{"database-url", "", "PostgreSQL, such as postgres://sallyport@db/sallyport?sslmode=verify-full. Required.\n" +
		"The login must be a member of sallyport_app and no more: serve refuses one that could rewrite the log.\n" +
		"Trusts: the database keeps the log, but cannot change it unnoticed (the checkpoint is signed here)."},
	{"keys-dir", "/etc/sallyport/keys", "Folder that sallyportd ca init made.\n" +
		"Trusts: whoever reads these files can sign certificates, checkpoints and access tokens."},
	{"policy", "/etc/sallyport/policy.yaml", "The policy to begin with: who may ask for what, and who must approve.\n" +
		"Trusts: whoever can write it before the first start decides who gets in. Later versions are proposed by one operator\n" +
		"and approved by another; then a file that differs decides nothing, and serve says so."},
	{"notify", "", "YAML file that says through which channels people are told what waits for them. Empty: nobody is told.\n" +
		"Trusts: its channels with who asks for what and why, and whoever can write it to name others."},
	{"state-dir", "/var/lib/sallyport", "Folder for the last checkpoint seen, outside the database.\n" +
		"With it, a database that was put back to an older state is noticed. Empty: it is not."},
	{"witnesses", "", "File with the log's witnesses, their addresses and how many must agree (c2sp.org/tlog-policy). Empty: none.\n" +
		"serve refuses to start if one of them remembers more of the log than the database has. See docs/witness.md."},
	{"require-witnesses", "", "Issue no certificates while the witnesses lag by so long, such as 10m. Empty: they are never waited for."},
	{"recording-keys", "", "File with the auditors' public keys (age-keygen -y), one to a line, to which hosts encrypt recordings of sessions.\n" +
		"Empty: sessions whose rule says record: true do not begin. Private keys are refused. See docs/recording.md.\n" +
		"Trusts: whoever can write it can add a key, and then read what is recorded from then on, if the database is theirs, too."},
	{"streams", "", "YAML file that says where the log goes as it grows: files, webhooks, Splunk. Empty: nowhere. See docs/streaming.md.\n" +
		"Trusts: its receivers with who asked for what, why, and who approved; and whoever can write it to name others."},
	{"oidc-issuer", "", "Issuer URL of the OpenID provider that people sign in with. Required.\n" +
		"Trusts: the provider says who somebody is and which groups they are in."},
	{"oidc-client-id", "sallyport", "Client id of the broker at the provider; its redirect URI there is URL/signin/callback."},
	{"oidc-client-secret", "", "Client secret at the provider. Rather use the next: a flag is seen by every process here."},
	{"oidc-client-secret-file", "", "File with the client secret."},
	{"oidc-groups-claim", "groups", "Claim of the ID token that holds the person's groups.\n" +
		"Trusts: policy goes by these groups, so nobody but administrators may set that claim at the provider."},
	{"ca-passphrase-file", "", "File with the passphrase of the CA keys, if ca init was given one."},
	{"ssh-agent", "", "Socket of an ssh-agent that holds both CA keys; keys-dir then needs only their .pub files.\n" +
		"Trusts: whoever can talk to that agent can sign certificates that the log does not have."},
	{"tls-cert", "", "Certificate file (PEM) to serve https with. Empty: plain http, for a proxy on the same machine."},
	{"tls-key", "", "Private key file (PEM) of tls-cert."},
	{"trusted-proxies", "", "Addresses or networks of proxies, separated by commas, such as 10.0.0.5,10.1.0.0/16.\n" +
		"Trusts: these to say in X-Forwarded-For where a call comes from, which is logged and counts for the limit on sign-ins."},
	{"signin-idle", "1h", "A browser's sign-in ends when unused for so long."},
	{"signin-lifetime", "12h", "Every sign-in ends after so long, used or not. Then the provider is asked again."},
	{"log-format", "text", "Format of the process's own log on standard error: text or json."},
}
