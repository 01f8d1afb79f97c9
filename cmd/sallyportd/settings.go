package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/pflag"
)

// settings are the options' values by name.
type settings map[string]string

// addFlags documents the options as flags of a command.
func addFlags(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.String("config", "", "YAML file with any of the following, _ for - in its keys. [$SALLYPORT_CONFIG]\n"+
		"A flag wins over its environment variable, and that over the file. Unknown keys are refused.")
	for _, o := range options {
		flags.String(o.name, o.standard, o.usage+" [$"+variable(o.name)+"]")
	}
}

func variable(name string) string {
	return "SALLYPORT_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// resolve gives every option its value: from the flag, else the environment,
// else the configuration file, else the standard one.
func resolve(flags *pflag.FlagSet, lookupEnv func(string) (string, bool)) (settings, error) {
	file, err := flags.GetString("config")
	if err != nil {
		return nil, err
	}
	if file == "" {
		file, _ = lookupEnv(variable("config"))
	}
	values := settings{}
	for _, o := range options {
		values[o.name] = o.standard
	}
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, usageError{fmt.Errorf("reading the configuration: %w", err)}
		}
		if err := values.read(text); err != nil {
			return nil, usageError{fmt.Errorf("configuration %s: %w", file, err)}
		}
	}
	for _, o := range options {
		if v, ok := lookupEnv(variable(o.name)); ok {
			values[o.name] = v
		}
		if f := flags.Lookup(o.name); f.Changed {
			values[o.name] = f.Value.String()
		}
	}
	return values, nil
}

// read takes the values of one YAML mapping, strictly.
func (s settings) read(text []byte) error {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return err
	}
	for _, doc := range file.Docs {
		var pairs []*ast.MappingValueNode
		switch body := doc.Body.(type) {
		case nil, *ast.CommentGroupNode, *ast.NullNode:
		case *ast.MappingNode:
			pairs = body.Values
		case *ast.MappingValueNode:
			pairs = append(pairs, body)
		default:
			return errors.New("it is not a mapping of names to values")
		}
		for _, pair := range pairs {
			if err := s.set(pair); err != nil {
				at := pair.Key.GetToken().Position
				return fmt.Errorf("line %d, column %d: %w", at.Line, at.Column, err)
			}
		}
	}
	return nil
}

func (s settings) set(pair *ast.MappingValueNode) error {
	key := pair.Key.GetToken().Value
	name := strings.ReplaceAll(key, "_", "-")
	if _, known := s[name]; !known || strings.Contains(key, "-") {
		return fmt.Errorf("unknown key %q; sallyportd serve --help lists them all", key)
	}
	switch v := pair.Value.(type) {
	case *ast.StringNode:
		s[name] = v.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		s[name] = v.GetToken().Value
	case *ast.NullNode:
		s[name] = ""
	case *ast.SequenceNode:
		var items []string
		for _, item := range v.Values {
			text, ok := item.(*ast.StringNode)
			if !ok {
				return fmt.Errorf("%s has an entry that is not a string", key)
			}
			items = append(items, text.Value)
		}
		s[name] = strings.Join(items, ",")
	default:
		return fmt.Errorf("%s must be one value", key)
	}
	return nil
}
