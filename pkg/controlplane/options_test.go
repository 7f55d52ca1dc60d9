package controlplane

import (
	"net"
	"strings"
	"testing"
	"time"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/pki"
)

func TestOptionsValidate(t *testing.T) {
	bundle, err := pki.NewBundle("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		reason string
		change func(*Options)
		// want are parts of the error; none means valid.
		want []string
	}{
		"Minimal": {
			reason: "Only name, directory, authorities and a range are needed.",
			change: func(*Options) {},
		},
		"DualStack": {
			reason: "One range for each family is fine.",
			change: func(o *Options) { o.ServiceCIDRs = []string{"10.96.0.0/16", "fd00::/112"} },
		},
		"Empty": {
			reason: "Everything that is missing is named at once.",
			change: func(o *Options) { *o = Options{} },
			want:   []string{"Name", "DataDir", "PKI", "ServiceCIDRs"},
		},
		"UnknownProfile": {
			reason: "An unknown profile says which are known.",
			change: func(o *Options) { o.Profile = "edge" },
			want:   []string{`"edge"`, `"tenant"`, `"host"`},
		},
		"BadRange": {
			reason: "A range that is none says how one looks.",
			change: func(o *Options) { o.ServiceCIDRs = []string{"10.96.0.0"} },
			want:   []string{`"10.96.0.0"`, "10.96.0.0/16"},
		},
		"TwoRangesOfAFamily": {
			reason: "Kubernetes takes one range for each family.",
			change: func(o *Options) { o.ServiceCIDRs = []string{"10.96.0.0/16", "10.97.0.0/16"} },
			want:   []string{"10.96.0.0/16", "10.97.0.0/16"},
		},
		"ServiceIPOutside": {
			reason: "default/kubernetes must be in the range.",
			change: func(o *Options) { o.KubernetesServiceIP = net.IPv4(10, 1, 2, 3) },
			want:   []string{"10.1.2.3", "10.96.0.0/16"},
		},
		"UnknownLevel": {
			reason: "An unknown level says which are known.",
			change: func(o *Options) { o.PodSecurity = "strict" },
			want:   []string{`"strict"`, `"privileged"`, `"baseline"`, `"restricted"`},
		},
		"BadAddress": {
			reason: "A name is no address to bind.",
			change: func(o *Options) { o.BindAddress = "localhost" },
			want:   []string{`"localhost"`, "IP address"},
		},
		"UnknownRole": {
			reason: "An unknown role says which are known.",
			change: func(o *Options) { o.Members = []Binding{{Kind: "User", Name: "ada", Role: "owner"}} },
			want:   []string{`"ada"`, `"owner"`, `"admin"`, `"edit"`, `"view"`},
		},
		"ServiceAccountWithoutNamespace": {
			reason: "A ServiceAccount is one of a namespace.",
			change: func(o *Options) {
				o.Members = []Binding{{Kind: "ServiceAccount", Name: "ci", Role: api.RoleEdit}}
			},
			want: []string{`"ci"`, "namespace"},
		},
		"CheckWithoutName": {
			reason: "A check must be named in /readyz.",
			change: func(o *Options) { o.ReadyChecks = []ReadyCheck{{Check: func() error { return nil }}} },
			want:   []string{"ReadyChecks"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			o := Options{Name: "test", DataDir: t.TempDir(), PKI: bundle, ServiceCIDRs: []string{"10.96.0.0/16"}}
			tc.change(&o)
			err := o.withDefaults().validate()
			if len(tc.want) == 0 {
				if err != nil {
					t.Fatalf("%s\nvalidate() = %v, want none", tc.reason, err)
				}
				return
			}
			if err == nil {
				t.Fatalf("%s\nvalidate() = nil, want an error", tc.reason)
			}
			for _, part := range tc.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s\nvalidate() = %v, want it to name %s", tc.reason, err, part)
				}
			}
		})
	}
}

func TestMemberBindings(t *testing.T) {
	got := map[string]int{}
	for _, binding := range memberBindings(ProfileTenant, []Binding{
		{Kind: memberUser, Name: "ada", Role: api.RoleView},
		{Kind: memberUser, Name: "ada", Role: api.RoleView},
		{Kind: memberServiceAccount, Namespace: "ci", Name: "bot", Role: api.RoleView},
		{Kind: memberGroup, Name: "ops", Role: api.RoleAdmin},
	}) {
		got[binding.Name+" "+binding.RoleRef.Name] = len(binding.Subjects)
	}
	want := map[string]int{
		"sublet:admin cluster-admin":         1,
		"sublet:edit edit":                   1,
		"sublet:view view":                   1,
		"sublet:members:admin cluster-admin": 1,
		"sublet:members:view view":           2,
	}
	if diff := compare(want, got); diff != "" {
		t.Errorf("memberBindings() -want +got:\n%s", diff)
	}
	if host := memberBindings(ProfileHost, nil); len(host) != 0 {
		t.Errorf("memberBindings() of a host = %v, want none: tenants' groups mean nothing there", host)
	}
}

func TestDataDirectory(t *testing.T) {
	dir := t.TempDir()
	first, err := lockDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDataDir(dir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("lockDataDir() of a directory in use = %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := lockDataDir(dir)
	if err != nil {
		t.Errorf("lockDataDir() after the other is gone = %v", err)
	}
	_ = second.Close()

	if err := enoughSpace(dir, 1<<20); err == nil || !strings.Contains(err.Error(), "more space") {
		t.Errorf("enoughSpace() of a full volume = %v", err)
	}
	if err := enoughSpace(dir, 1<<30); err != nil {
		t.Errorf("enoughSpace() = %v", err)
	}
}

func TestServingCertificateRenewal(t *testing.T) {
	bundle, err := pki.NewBundle("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Name: "test", PKI: bundle, ServerNames: []string{"sublet.acme.svc"}}.withDefaults()
	certs, err := newCertificates(o, nil, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	told := &countingListener{}
	certs.serving.AddListener(told)
	before, _ := certs.serving.CurrentCertKeyContent()
	if err := certs.serving.issue(time.Now()); err != nil {
		t.Fatal(err)
	}
	after, _ := certs.serving.CurrentCertKeyContent()
	if string(before) == string(after) || told.count != 1 {
		t.Errorf("a renewal told %d listeners, and changed the certificate: %t", told.count, string(before) != string(after))
	}
	if due := time.Until(certs.serving.renew); due < 50*24*time.Hour || due > 70*24*time.Hour {
		t.Errorf("the next renewal is due in %s, want about 60 days", due)
	}
}

type countingListener struct{ count int }

func (l *countingListener) Enqueue() { l.count++ }

// TestControllerDefaults: some defaults are those of flags only.
func TestControllerDefaults(t *testing.T) {
	got, err := defaultControllers()
	must(t, "the configuration of controllers", err)
	nodes := got.NodeLifecycleController
	if nodes.NodeEvictionRate != 0.1 || nodes.SecondaryNodeEvictionRate != 0.01 || nodes.UnhealthyZoneThreshold != 0.55 || nodes.LargeClusterSizeThreshold != 50 {
		t.Errorf("nodes that are lost are tainted by %+v", nodes)
	}
}
