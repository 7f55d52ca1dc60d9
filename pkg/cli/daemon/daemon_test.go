package daemon

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/klog/v2"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/controlplane"
)

func TestUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("tenant: acme\nnoSuchField: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	host := filepath.Join(t.TempDir(), "host")
	kubeconfig := "apiVersion: v1\nkind: Config\nclusters: [{name: h, cluster: {server: 'http://127.0.0.1:1'}}]\ncontexts: [{name: h, context: {cluster: h, user: ''}}]\ncurrent-context: h\n"
	if err := os.WriteFile(host, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		args   []string
		code   int
		says   string
		reason string
	}{
		"help":            {args: nil, code: 0},
		"version":         {args: []string{"version"}, code: 0},
		"unknown command": {args: []string{"tenants"}, code: 2, says: `unknown command "tenants"`},
		"missing flags":   {args: []string{"tenant"}, code: 2, says: `"config", "data", "pki" not set`},
		"unknown flag":    {args: []string{"manager", "--nope"}, code: 2, says: "unknown flag: --nope"},
		"log format":      {args: []string{"manager", "--log-format", "xml"}, code: 2, says: "use text or json"},
		"no host":         {args: []string{"manager"}, code: 1, says: "outside of a pod, give --kubeconfig"},
		"no config":       {args: []string{"tenant", "--config", "/nowhere", "--pki", "/nowhere", "--data", "/nowhere", "--kubeconfig", host}, code: 1, says: "open /nowhere: no such file"},
		"strict config": {
			args: []string{"tenant", "--config", file, "--pki", "/nowhere", "--data", "/nowhere", "--kubeconfig", host}, code: 1, says: "noSuchField",
			reason: "what this release does not know must not be left out in silence",
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			err := Run(context.Background(), test.args, &stdout, &stderr)
			if code := Report(&stderr, err); code != test.code {
				t.Errorf("exit code %d, want %d (%s)", code, test.code, test.reason)
			}
			lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
			if last := lines[len(lines)-1]; !strings.Contains(last, test.says) {
				t.Errorf("the last line is %q, and says nothing of %q", last, test.says)
			}
		})
	}
}

func TestLogHasOnlyOwnLines(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			var out bytes.Buffer
			ctx, err := (&logFlags{format: format}).apply(context.Background(), &out)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(klog.ClearLogger)
			klog.FromContext(ctx).WithValues("tenant", "acme").Info("ours")
			klog.InfoS("ours, too")
			// The standard library stands for every other one.
			klog.NewStandardLogger("INFO").Print("theirs")
			klog.Background().Error(errors.New("broken"), "an error")
			got := out.String()
			for text, want := range map[string]bool{"ours": true, "ours, too": true, "theirs": false, "an error": true, "daemon_test.go": true} {
				if strings.Contains(got, text) != want {
					t.Errorf("%q in the log: %t, want %t; the log is\n%s", text, !want, want, got)
				}
			}
		})
	}
}

func TestBindings(t *testing.T) {
	members := []api.Member{
		{Kind: "User", Name: "alice", Role: api.RoleAdmin},
		{Kind: "Group", Name: "team", Role: api.RoleView, Scope: "Subtree"},
		{Kind: "Group", Name: "below", Role: api.RoleView, Scope: "Descendants"},
		{Kind: "Group", Name: "system:authenticated", Role: api.RoleEdit},
		{Kind: "ServiceAccount", Namespace: "ci", Name: "deployer", Role: api.RoleEdit},
	}
	want := []controlplane.Binding{
		{Kind: "User", Name: "alice", Role: api.RoleAdmin},
		{Kind: "Group", Name: "team", Role: api.RoleView},
	}
	if diff := cmp.Diff(want, bindings(members)); diff != "" {
		t.Errorf("bindings inside the tenant (-want +got):\n%s", diff)
	}
}

func TestServerIdentity(t *testing.T) {
	want := []string{"sublet", "sublet.acme", "sublet.acme.svc", "sublet.acme.svc.cluster.local"}
	if diff := cmp.Diff(want, serverNames("acme")); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]net.IP{net.ParseIP("10.96.0.7")}, serverIPs(api.ControlPlaneConfig{APIServiceIP: "10.96.0.7"})); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

func TestEssentialEnds(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	failing := func(context.Context) error { return errors.New("broken") }
	fine := func(context.Context) error { return nil }
	cases := map[string]struct {
		ctx  context.Context
		run  func(context.Context) error
		want string
	}{
		"told to end":       {cancelled, fine, ""},
		"fails on the way":  {cancelled, failing, ""},
		"fails":             {context.Background(), failing, "DNS: broken"},
		"gives up silently": {context.Background(), fine, "DNS ended by itself"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := essential(test.ctx, "DNS", test.run); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
