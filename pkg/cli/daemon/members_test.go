package daemon

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// binder notes what is bound, and fails as often as it is told.
type binder struct {
	mu       sync.Mutex
	failures int
	bound    [][]api.Member
	seen     [][]api.Member
}

func (b *binder) set(_ context.Context, members []api.Member) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures > 0 {
		b.failures--
		return errors.New("not now")
	}
	b.bound = append(b.bound, members)
	return nil
}

func (b *binder) see(config api.ControlPlaneConfig) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = append(b.seen, config.Members)
}

func (b *binder) all() [][]api.Member {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bound
}

func TestFollowMembers(t *testing.T) {
	ann := api.Member{Kind: "User", Name: "ann", Role: api.RoleEdit}
	bob := api.Member{Kind: "User", Name: "bob", Role: api.RoleAdmin}
	config := func(members ...api.Member) api.ControlPlaneConfig {
		return api.ControlPlaneConfig{Tenant: "acme", HostNamespace: "acme", PodSecurity: api.PodSecurityBaseline, Members: members}
	}
	configMap := func(name string, members ...api.Member) *corev1.ConfigMap {
		content, err := yaml.Marshal(config(members...))
		if err != nil {
			t.Fatal(err)
		}
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: name}, Data: map[string]string{api.ConfigKey: string(content)}}
	}
	cases := map[string]struct {
		started  []api.Member
		written  [][]api.Member
		broken   bool
		failures int
		want     [][]api.Member
	}{
		"somebody comes":             {started: []api.Member{ann}, written: [][]api.Member{{ann}, {ann, bob}}, want: [][]api.Member{{ann, bob}}},
		"everybody goes":             {started: []api.Member{ann, bob}, written: [][]api.Member{{ann, bob}, nil}, want: [][]api.Member{nil}},
		"it changed before it began": {started: []api.Member{ann}, written: [][]api.Member{{bob}}, want: [][]api.Member{{bob}}},
		"a failure":                  {written: [][]api.Member{nil, {bob}}, failures: 2, want: [][]api.Member{{bob}}},
		"what cannot be read":        {started: []api.Member{ann}, written: [][]api.Member{{ann}}, broken: true, want: [][]api.Member{{bob}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			host := fake.NewClientset(configMap(api.ControlPlaneName, c.written[0]...))
			ctx, cancel := context.WithCancel(t.Context())
			b := &binder{failures: c.failures}
			ended := make(chan error, 1)
			go func() { ended <- followMembers(ctx, host, config(c.started...), b.see, b.set) }()
			for !watching(host) {
				time.Sleep(time.Millisecond)
			}
			update := func(object *corev1.ConfigMap) {
				t.Helper()
				if _, err := host.CoreV1().ConfigMaps("acme").Update(ctx, object, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if c.broken {
				update(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: api.ControlPlaneName}, Data: map[string]string{api.ConfigKey: "noSuchField: 1"}})
				update(configMap(api.ControlPlaneName, bob))
			}
			for _, members := range c.written[1:] {
				update(configMap(api.ControlPlaneName, members...))
			}
			for begin := time.Now(); len(b.all()) < len(c.want); time.Sleep(time.Millisecond) {
				if time.Since(begin) > 30*time.Second {
					t.Fatalf("bound %v only", b.all())
				}
			}
			cancel()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, b.all()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			// Whatever was bound was seen, and what cannot be read was not.
			if last := b.seen[len(b.seen)-1]; !cmp.Equal(last, c.want[len(c.want)-1]) {
				t.Errorf("last seen %v", last)
			}
		})
	}
}

func watching(host *fake.Clientset) bool {
	for _, action := range host.Actions() {
		if action.GetVerb() == "watch" {
			return true
		}
	}
	return false
}
