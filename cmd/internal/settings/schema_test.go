package settings

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"go.yaml.in/yaml/v3"
)

// schema is as much of a JSON schema as the file's uses.
type schema struct {
	Type                 any               `json:"type"`
	Properties           map[string]schema `json:"properties"`
	AdditionalProperties any               `json:"additionalProperties"`
	Description          string            `json:"description"`
	Defs                 map[string]schema `json:"$defs"`
}

// TestSchema: the published schema knows the keys that the program knows, no more and
// no less, says what each is, and gives each the type that the program takes.
func TestSchema(t *testing.T) {
	text, err := os.ReadFile("../../../docs/borrownet.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var root schema
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		of     reflect.Type
		schema schema
	}{{"file", reflect.TypeFor[Settings](), root}, {"session", reflect.TypeFor[Service](), root.Defs["service"]}} {
		fields := fieldsOf(tt.of)
		if tt.schema.AdditionalProperties != false {
			t.Errorf("%s: other keys are allowed", tt.name)
		}
		for name, ft := range fields {
			p, ok := tt.schema.Properties[name]
			if !ok || p.Description == "" {
				t.Errorf("%s: %s is not in the schema, or without a description", tt.name, name)
				continue
			}
			if want := typeOf(ft); want != "" && p.Type != want {
				t.Errorf("%s: %s has type %v, want %s", tt.name, name, p.Type, want)
			}
		}
		for name := range tt.schema.Properties {
			if _, ok := fields[name]; !ok {
				t.Errorf("%s: %s is in the schema alone", tt.name, name)
			}
		}
	}
}

// typeOf is the schema's word for t; "" where there are several.
func typeOf(t reflect.Type) string {
	if _, itself := reflect.New(t).Interface().(yaml.Unmarshaler); itself {
		return ""
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "object"
	case reflect.Slice:
		return "array"
	case reflect.Bool:
		return "boolean"
	}
	return "string"
}

func TestShape(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"suggests", "agentImage: x\nsesions: {}\n", "line 2: there is no key sesions at the top, did you mean sessions?"},
		{"deep", "sessions:\n  api:\n    namspace: shop\n", "line 3: there is no key namspace in sessions.api, did you mean namespace?"},
		{"far_from_all", "colour: red\n", "line 1: there is no key colour at the top"},
		{"no_list", "local: corp.example.org\n", "line 1: local is not a list"},
		{"no_bool", "sessions: {api: {stay: maybe}}\n", "line 1: sessions.api.stay is not true or false"},
		{"no_port", "remoteLocalhost:\n- 99999\n", "line 2: remoteLocalhost is not a port number"},
		{"no_map", "sessions:\n- api\n", "line 2: sessions is not names with values"},
		{"no_session", "sessions: {api: shop}\n", "line 1: sessions.api is not keys with values"},
		{"no_command", "sessions:\n  api:\n    command: []\n", "line 3: a command is a line for the shell, or a list of words"},
		{"no_text", "sessions: {api: {pod: [a]}}\n", "line 1: sessions.api.pod is not a text"},
		{"twice", "agentImage: x\nagentImage: y\n", `line 2: mapping key "agentImage" already defined at line 1`},
		{"no_file", "- a\n", "line 1: the file is not keys with values"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s Settings
			err := parse([]byte(tt.text), &s)
			if err == nil || reason(err) != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestStack(t *testing.T) {
	var s Settings
	err := parse([]byte(`
namespace: shop
redirect:
  orders: :3000
sessions:
  api:
  web:
    context: other
    stay: true
    direct: true
    mirror: [8080:3000, 9090]
    env: {PORT: 8080, DEBUG: yes, NAME: "x"}
    redirect: {"ledger.money:80": 127.0.0.1:4000}
    command: [go, run, ./web]
  db:
    pod: sts/db
    command: ./db --port 5432
`), &s)
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{
		Namespace: "shop", Routing: Routing{Redirect: map[string]string{"orders": ":3000"}},
		Sessions: map[string]Service{
			"api": {},
			"web": {
				Context: "other", Stay: true, Direct: true, Mirror: []string{"8080:3000", "9090"}, Env: map[string]string{"PORT": "8080", "DEBUG": "yes", "NAME": "x"},
				Routing: Routing{Redirect: map[string]string{"ledger.money:80": "127.0.0.1:4000"}}, Command: Command{"go", "run", "./web"},
			},
			"db": {Pod: "sts/db", Command: Command{"/bin/sh", "-c", "./db --port 5432"}},
		},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
}
