package encode

import "testing"

func TestText(t *testing.T) {
	v := struct {
		Name string `json:"name"`
		List []int  `json:"list"`
	}{"x", []int{1}}
	tests := []struct{ format, want string }{
		{"json", "{\n  \"name\": \"x\",\n  \"list\": [\n    1\n  ]\n}\n"},
		{"yaml", "list:\n- 1\nname: x\n"},
	}
	for _, tt := range tests {
		t.Run(tt.format, func(t *testing.T) {
			got, err := Text(tt.format, v)
			if err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	if _, err := Text("xml", v); err == nil {
		t.Error("xml: no error")
	}
}
