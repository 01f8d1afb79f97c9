package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"sallyport/broker/keys"
)

func caCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "Make or show the keys that the broker signs with"}
	cmd.AddCommand(caInitCommand(), caShowCommand())
	return cmd
}

func caInitCommand() *cobra.Command {
	var o keys.InitOptions
	var passphraseFile string
	cmd := &cobra.Command{
		Use:   "init --origin NAME",
		Short: "Make the user CA, the host CA, the log's key and the token key",
		Long: `Make the four keys of a broker in a folder that has none: the CA of user
certificates, the CA of host certificates, the key that signs the log's
checkpoints, and the key of access tokens. Each file is for its owner only.

The origin is the log's name for ever: a name in a domain of yours, without a
scheme, such as sallyport.example.com/log.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Origin == "" {
				return usageError{errors.New("--origin is not set")}
			}
			if passphraseFile != "" {
				text, err := readSecret(passphraseFile)
				if err != nil {
					return err
				}
				if len(text) == 0 {
					return usageError{fmt.Errorf("%s is empty", passphraseFile)}
				}
				o.Passphrase = text
			}
			if err := keys.Init(o); err != nil {
				return err
			}
			return showKeys(cmd, o.Dir)
		},
	}
	cmd.Flags().StringVar(&o.Dir, "dir", standardOf("keys-dir"), "Folder to make them in")
	cmd.Flags().StringVar(&o.Origin, "origin", "", "Name of the log. Required")
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "File with a passphrase to encrypt both CA keys with")
	return cmd
}

func caShowCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the public halves of the keys",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return showKeys(cmd, dir) },
	}
	cmd.Flags().StringVar(&dir, "dir", standardOf("keys-dir"), "Folder that ca init made")
	return cmd
}

// showKeys prints what others need of the keys in dir, with what each is for.
func showKeys(cmd *cobra.Command, dir string) error {
	for _, k := range []struct{ title, file string }{
		{"user CA, for hosts' TrustedUserCAKeys", keys.UserCAFile + ".pub"},
		{"host CA, for clients' known_hosts after @cert-authority", keys.HostCAFile + ".pub"},
		{"log, the key that its checkpoints verify with", strings.TrimSuffix(keys.LogFile, ".key") + ".vkey"},
	} {
		text, err := os.ReadFile(filepath.Join(dir, k.file))
		if err != nil {
			return err
		}
		line := strings.TrimSpace(string(text))
		fmt.Fprintf(cmd.OutOrStdout(), "# %s\n", k.title)
		if key, _, _, _, err := ssh.ParseAuthorizedKey(text); err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "# %s\n", ssh.FingerprintSHA256(key))
		}
		fmt.Fprintln(cmd.OutOrStdout(), line)
	}
	return nil
}

func standardOf(name string) string {
	for _, o := range options {
		if o.name == name {
			return o.standard
		}
	}
	return ""
}
