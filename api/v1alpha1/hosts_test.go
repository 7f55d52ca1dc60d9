package v1alpha1_test

import (
	"testing"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

func TestHostCovers(t *testing.T) {
	for _, test := range []struct {
		pattern, host string
		want          bool
	}{
		{"shop.example.com", "shop.example.com", true},
		{"shop.example.com", "a.shop.example.com", false},
		{"shop.example.com", "*.shop.example.com", false},
		{"shop.example.com", "", false},
		{"*.example.com", "shop.example.com", true},
		{"*.example.com", "a.shop.example.com", true},
		{"*.example.com", "*.example.com", true},
		{"*.example.com", "*.shop.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "evilexample.com", false},
		{"*.example.com", "*", false},
		{"*.example.com", "", false},
		{"*.shop.example.com", "*.example.com", false},
		{"*example.com", "evilexample.com", false},
		{"*", "anything.example.org", true},
		{"*", "*.example.org", true},
		{"*", "", true},
		{"", "shop.example.com", false},
	} {
		if got := api.HostCovers(test.pattern, test.host); got != test.want {
			t.Errorf("%q covers %q: %v", test.pattern, test.host, got)
		}
	}
}
