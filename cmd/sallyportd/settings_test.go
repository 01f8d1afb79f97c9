package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// resolveTest resolves a command line, an environment and a file.
func resolveTest(t *testing.T, args []string, env map[string]string, file string) (settings, error) {
	t.Helper()
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	addFlags(flags)
	if file != "" {
		name := filepath.Join(t.TempDir(), "sallyport.yaml")
		if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", name)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return resolve(flags, func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	})
}

func TestFlagBeforeEnvironmentBeforeFile(t *testing.T) {
	t.Parallel()
	for _, o := range options {
		args := []string{"--" + o.name, "flag"}
		env := map[string]string{variable(o.name): "env"}
		file := strings.ReplaceAll(o.name, "-", "_") + ": file\n"
		for _, c := range []struct {
			name string
			args []string
			env  map[string]string
			file string
			want string
		}{
			{"nothing", nil, nil, "", o.standard},
			{"file", nil, nil, file, "file"},
			{"environment over file", nil, env, file, "env"},
			{"flag over environment and file", args, env, file, "flag"},
			{"flag over file", args, nil, file, "flag"},
			{"empty variable over file", nil, map[string]string{variable(o.name): ""}, file, ""},
		} {
			set, err := resolveTest(t, c.args, c.env, c.file)
			if err != nil {
				t.Fatalf("%s, %s: %v", o.name, c.name, err)
			}
			if set[o.name] != c.want {
				t.Errorf("%s, %s: %q, want %q", o.name, c.name, set[o.name], c.want)
			}
		}
	}
}

func TestConfigurationFileByVariable(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "sallyport.yaml")
	if err := os.WriteFile(name, []byte("# ours\nlisten: :9\ntrusted_proxies: [10.0.0.1, 10.2.0.0/16]\nlog_format: json\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := resolveTest(t, nil, map[string]string{"SALLYPORT_CONFIG": name}, "")
	if err != nil {
		t.Fatal(err)
	}
	if set["listen"] != ":9" || set["trusted-proxies"] != "10.0.0.1,10.2.0.0/16" || set["log-format"] != "json" {
		t.Errorf("settings %v", set)
	}
}

func TestConfigurationFileIsStrict(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, want string }{
		"unknown key":       {"url: http://localhost\nlissten: :80\n", `line 2, column 1: unknown key "lissten"`},
		"flag's spelling":   {"keys-dir: /k\n", `line 1, column 1: unknown key "keys-dir"`},
		"twice":             {"url: a\nurl: b\n", "already defined"},
		"nested":            {"url:\n  scheme: http\n", "url must be one value"},
		"list of mappings":  {"trusted_proxies:\n- a: b\n", "not a string"},
		"not a mapping":     {"- url\n", "not a mapping"},
		"not YAML":          {"url: [\n", "configuration"},
		"config in itself":  {"config: other.yaml\n", `unknown key "config"`},
		"second document":   {"url: a\n---\nurrl: b\n", `unknown key "urrl"`},
		"only the key name": {"url\n", "not a mapping"},
	} {
		_, err := resolveTest(t, nil, nil, c.file)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestBadValuesAreUsageErrors(t *testing.T) {
	t.Parallel()
	good := []string{"--url=http://localhost:1", "--database-url=postgres://x", "--oidc-issuer=http://i"}
	for name, c := range map[string]struct{ args, want string }{
		"missing url":   {"--url=", "--url is not set; neither is $SALLYPORT_URL"},
		"duration":      {"--signin-idle=soon", "--signin-idle"},
		"negative":      {"--signin-lifetime=-1h", "--signin-lifetime"},
		"log format":    {"--log-format=xml", "--log-format"},
		"proxies":       {"--trusted-proxies=10.0.0.0/33", "--trusted-proxies"},
		"secret's file": {"--oidc-client-secret-file=/does/not/exist", "--oidc-client-secret-file"},
	} {
		set, err := resolveTest(t, append(append([]string{}, good...), c.args), nil, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := set.config(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	set, err := resolveTest(t, good, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set.config(); err != nil {
		t.Errorf("good settings are refused: %v", err)
	}
}

func TestSecretFromFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte("hunter2\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	set := settings{"oidc-client-secret-file": name}
	if got, err := set.secret("oidc-client-secret"); err != nil || got != "hunter2" {
		t.Errorf("%q, %v", got, err)
	}
	set["oidc-client-secret"] = "other"
	if _, err := set.secret("oidc-client-secret"); err == nil {
		t.Error("two secrets were accepted")
	}
}

// A variable in the files for containers that no option has would be ignored.
func TestContainersSetOptionsThatExist(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"SALLYPORT_ADMIN_URL": true, "SALLYPORT_DATABASE_PASSWORD": true}
	for _, o := range options {
		known[variable(o.name)] = true
	}
	for _, name := range []string{"compose.yaml", "Dockerfile"} {
		text, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`SALLYPORT_[A-Z_]+`).FindAllString(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s sets nothing", name)
		}
		for _, v := range found {
			if !known[v] {
				t.Errorf("%s sets %s, which nothing reads", name, v)
			}
		}
	}
}
