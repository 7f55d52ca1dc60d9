package daemon

import (
	"net"
	"testing"

	"k8s.io/client-go/rest"
)

func TestFence(t *testing.T) {
	f := newFence(&rest.Config{Host: "https://10.96.0.1:443"}, "127.0.0.1:1053")
	f.set([]string{"192.168.1.5:6443", "[fd00::5]:6443"})
	tests := map[string]struct {
		address string
		ok      bool
		reason  string
	}{
		"a pod":                         {"10.244.0.9:8443", true, "webhooks run in pods"},
		"a Service":                     {"10.96.7.7:443", true, "and are called by their Service"},
		"a public address":              {"93.184.216.34:443", true, "as limits and network policies say"},
		"the way of the process itself": {"10.96.0.1:443", false, "the Service of the host's API"},
		"an endpoint of the host's API": {"192.168.1.5:6443", false, "as the manager says"},
		"the same, mapped":              {"[::ffff:192.168.1.5]:6443", false, "one address in two ways"},
		"the same by IPv6":              {"[fd00::5]:6443", false, "as the manager says"},
		"another port there":            {"192.168.1.5:10250", true, "the host's network policies close it"},
		"loopback":                      {"127.0.0.1:8443", false, "what is in the pod is the control plane's"},
		"loopback by IPv6":              {"[::1]:8443", false, "the same"},
		"this machine":                  {"0.0.0.0:8443", false, "the same"},
		"metadata":                      {"169.254.169.254:80", false, "the cloud's secrets are there"},
		"link-local with a zone":        {"[fe80::1%eth0]:80", false, "the same by IPv6"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if err := f.check(t.Context(), "tcp", tc.address, nil); (err == nil) != tc.ok {
				t.Errorf("%s: %s: %v", tc.reason, tc.address, err)
			}
		})
	}
}

// TestFenceDials: the check is on the way, and sees what a name stands for.
func TestFenceDials(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	f := newFence(&rest.Config{Host: "https://10.96.0.1"}, "127.0.0.1:1")
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	for _, address := range []string{listener.Addr().String(), "localhost:" + port} {
		if conn, err := f.dial(t.Context(), "tcp", address); err == nil {
			conn.Close()
			t.Errorf("%s was reached", address)
		}
	}
	// Without the check it would be.
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
