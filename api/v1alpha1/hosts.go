package v1alpha1

import "strings"

// HostCovers tells whether an entry of Limits.Hosts allows a host name, or all
// that another entry allows: "*" everything, "*.example.com" all names below
// example.com, anything else itself.
func HostCovers(pattern, host string) bool {
	if pattern == host || pattern == "*" {
		return true
	}
	suffix, wildcard := strings.CutPrefix(pattern, "*")
	return wildcard && strings.HasPrefix(suffix, ".") && strings.HasSuffix(strings.TrimPrefix(host, "*"), suffix) && len(host) > len(suffix)
}
