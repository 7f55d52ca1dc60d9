package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiversion "k8s.io/apimachinery/pkg/version"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

func TestSuggest(t *testing.T) {
	names := []string{"acme", "acme-dev", "shop", "shop-2", "ml-lab"}
	cases := map[string]struct {
		typed  string
		want   []string
		reason string
	}{
		"swapped letters": {"amce", []string{"acme"}, "swapping two neighbours is one mistake"},
		"a letter less":   {"shp", []string{"shop"}, ""},
		"a beginning":     {"acm", []string{"acme", "acme-dev"}, "the nearest comes first"},
		"something else":  {"billing", nil, "what is not near is no suggestion"},
		"very short":      {"x", nil, ""},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, suggest(test.typed, names)); diff != "" {
				t.Errorf("suggestions for %q (-want +got):\n%s\n%s", test.typed, diff, test.reason)
			}
		})
	}
}

func FuzzSimilarName(f *testing.F) {
	for _, seed := range []string{"Acme Corp", "1st", "_", "ünïcode", strings.Repeat("x-", 40), "a", "-a-"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		similar := similarName(name)
		if similar != "" && !validName(similar) {
			t.Errorf("the suggestion %q for %q is not valid either", similar, name)
		}
		if validName(name) && similar != name && !strings.Contains(name, "--") {
			t.Errorf("the valid name %q became %q", name, similar)
		}
	})
}

func TestParseMember(t *testing.T) {
	cases := map[string]struct {
		text string
		want api.Member
		bad  bool
	}{
		"user":             {text: "user:alice@example.com=admin", want: api.Member{Kind: "User", Name: "alice@example.com", Role: api.RoleAdmin}},
		"name with =":      {text: "Group:cn=ops=view", want: api.Member{Kind: "Group", Name: "cn=ops", Role: api.RoleView}},
		"name with :":      {text: "user:system:admin=edit", want: api.Member{Kind: "User", Name: "system:admin", Role: api.RoleEdit}},
		"service account":  {text: "sa:ci/bot=edit", want: api.Member{Kind: "ServiceAccount", Namespace: "ci", Name: "bot", Role: api.RoleEdit}},
		"no role":          {text: "user:alice", bad: true},
		"no kind":          {text: "alice=admin", bad: true},
		"no name":          {text: "user:=admin", bad: true},
		"unknown role":     {text: "user:alice=boss", bad: true},
		"unknown kind":     {text: "robot:r=view", bad: true},
		"half an account":  {text: "sa:bot=view", bad: true},
		"empty":            {text: "", bad: true},
		"empty everything": {text: "=", bad: true},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := parseMember(test.text)
			if (err != nil) != test.bad {
				t.Fatalf("error: %v, want one: %t", err, test.bad)
			}
			if err != nil && !errors.As(err, new(*usageError)) {
				t.Errorf("%v is not an error of usage", err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("member (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSpecDifferences(t *testing.T) {
	class := "fast"
	base := func() api.TenantSpec {
		return api.TenantSpec{
			Type: api.VirtualCluster,
			Limits: &api.Limits{Quota: corev1.ResourceList{
				"requests.cpu": resource.MustParse("1"),
				"pods":         resource.MustParse("10"),
			}},
		}
	}
	cases := map[string]struct {
		change func(*api.TenantSpec)
		want   []string
		reason string
	}{
		"nothing":         {func(*api.TenantSpec) {}, nil, ""},
		"another writing": {func(s *api.TenantSpec) { s.Limits.Quota["requests.cpu"] = resource.MustParse("1000m") }, nil, "1000m is 1"},
		"an empty map":    {func(s *api.TenantSpec) { s.VirtualCluster = &api.VirtualClusterSpec{} }, nil, "an empty section says nothing"},
		"an amount": {
			func(s *api.TenantSpec) { s.Limits.Quota["requests.cpu"] = resource.MustParse("2") },
			[]string{`spec.limits.quota.requests.cpu is "1", not "2"`}, "",
		},
		"more": {
			func(s *api.TenantSpec) {
				s.VirtualCluster = &api.VirtualClusterSpec{Storage: &api.StorageSpec{Class: &class}}
			},
			[]string{`spec.virtualCluster.storage.class is unset, not "fast"`}, "",
		},
		"less": {
			func(s *api.TenantSpec) { delete(s.Limits.Quota, "pods") },
			[]string{`spec.limits.quota.pods is "10", not unset`}, "the settings are another's, perhaps",
		},
		"members": {
			func(s *api.TenantSpec) {
				s.Members = []api.Member{{Kind: "User", Name: "alice", Role: api.RoleAdmin}}
			},
			[]string{`spec.members is unset, not [{"kind":"User","name":"alice","role":"admin"}]`}, "",
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			wanted := base()
			test.change(&wanted)
			got, err := specDifferences(base(), wanted)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("differences (-want +got):\n%s\n%s", diff, test.reason)
			}
		})
	}
}

func TestPodProblem(t *testing.T) {
	waiting := func(reason, message string) corev1.PodStatus {
		return corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Image: "subletd:1",
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 1, Message: "one line\nerror: the data directory is full\n",
			}},
		}}}
	}
	cases := map[string]struct {
		status corev1.PodStatus
		says   string
		gives  bool
		reason string
	}{
		"starting":  {waiting("ContainerCreating", ""), "", false, "that is how every pod begins"},
		"no image":  {waiting("ImagePullBackOff", "not found"), "subletd:1", true, "an image that is not there does not come by itself"},
		"crashing":  {waiting("CrashLoopBackOff", "back-off"), "the data directory is full", true, "the last line says why"},
		"no secret": {waiting("CreateContainerConfigError", `secret "x" not found`), `secret "x" not found`, true, ""},
		"no node": {
			corev1.PodStatus{Conditions: []corev1.PodCondition{{
				Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/3 nodes",
			}}},
			"0/3 nodes", false, "a node may come, by an autoscaler",
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			text, patience := podProblem(&corev1.Pod{Status: test.status})
			if !strings.Contains(text, test.says) || (test.says == "") != (text == "") {
				t.Errorf("the problem is %q, want it to say %q", text, test.says)
			}
			if (patience > 0) != test.gives {
				t.Errorf("gives up: %t, want %t: %s", patience > 0, test.gives, test.reason)
			}
		})
	}
}

func TestTenantProblem(t *testing.T) {
	tenant := func(phase api.Phase, reason string, generation int64) *api.Tenant {
		return &api.Tenant{
			ObjectMeta: metav1.ObjectMeta{Generation: 2},
			Status: api.TenantStatus{Phase: phase, Conditions: []metav1.Condition{{
				Type: api.ConditionReady, Status: metav1.ConditionFalse, Reason: reason, Message: "message", ObservedGeneration: generation,
			}}},
		}
	}
	cases := map[string]struct {
		tenant *api.Tenant
		text   string
		gives  bool
	}{
		"taken":            {tenant(api.PhasePending, "NamespaceTaken", 2), "message", true},
		"about an old one": {tenant(api.PhasePending, "NamespaceTaken", 1), "", false},
		"volume on its way": {
			tenant(api.PhasePending, "VolumePending", 2), "message", false,
		},
		"being made":     {tenant(api.PhaseProvisioning, "Starting", 2), "", false},
		"being replaced": {tenant(api.PhaseDegraded, "Starting", 2), "", false},
		"new":            {&api.Tenant{}, "", false},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			text, patience := tenantProblem(test.tenant)
			if text != test.text || (patience > 0) != test.gives {
				t.Errorf("problem %q, gives up %t; want %q, %t", text, patience > 0, test.text, test.gives)
			}
		})
	}
}

func TestReport(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Group: api.GroupName, Resource: "tenants"}, "acme", errors.New("no"))
	cases := map[string]struct {
		err  error
		code int
		out  string
	}{
		"fine":        {nil, 0, ""},
		"error":       {errors.New("broken"), 1, "error: broken\n"},
		"with a hint": {fmt.Errorf("wrapped: %w", hint(errors.New("broken"), "Mend it.")), 1, "error: wrapped: broken\nMend it.\n"},
		"usage":       {usagef("wrong"), 2, "error: wrong\n"},
		"usage, hint": {hint(usagef("wrong"), "Right is better."), 2, "error: wrong\nRight is better.\n"},
		"a command's": {&exitCodeError{code: 42}, 42, ""},
		"Ctrl-C":      {&interruptedError{signal: os.Interrupt, advice: "go on"}, 130, "error: interrupted: go on\n"},
		"SIGTERM":     {&interruptedError{signal: syscall.SIGTERM}, 143, "error: interrupted\n"},
		"forbidden":   {newHost(&bytes.Buffer{}).explain(forbidden, "sublet"), 1, "error: too few rights on the host (this cluster): tenants.sublet.dev \"acme\" is forbidden: no\nWhat you may do with it, and who can give you more: sublet can-i --list acme\n"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if code := Report(&out, test.err); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if diff := cmp.Diff(test.out, out.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	if err := interrupted(ctx, errors.New("broken"), "advice"); errors.As(err, new(*interruptedError)) {
		t.Error("an error without a signal became an interruption")
	}
	cancel(&interruptedError{signal: os.Interrupt})
	if err := interrupted(ctx, nil, "advice"); err != nil {
		t.Errorf("success became %v", err)
	}
	if err := interrupted(ctx, ctx.Err(), "run it again"); err == nil || err.Error() != "interrupted: run it again" {
		t.Errorf("got %v", err)
	}
}

func TestProgressInAPipe(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	p.Step("first")
	p.Step("first")
	p.Step("second")
	p.Note("by the way")
	p.End()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "first (") || !strings.HasPrefix(lines[1], "second (") || lines[2] != "by the way" {
		t.Errorf("want one plain line for each step, got %q", lines)
	}
	if strings.ContainsAny(out.String(), "\r\x1b") {
		t.Error("control characters in a pipe")
	}
}

func TestRoughly(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                       "0.0s",
		2940 * time.Millisecond: "2.9s",
		60 * time.Second:        "1m00s",
		70 * time.Second:        "1m10s",
		10 * time.Minute:        "10m00s",
	} {
		if got := roughly(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestSetImage(t *testing.T) {
	for image, want := range map[string][2]string{
		"subletd":                       {"subletd", ""},
		"example.com:5000/subletd":      {"example.com:5000/subletd", ""},
		"example.com:5000/subletd:1.2":  {"example.com:5000/subletd", "1.2"},
		"example.com/subletd@sha256:ab": {"example.com/subletd@sha256", "ab"},
	} {
		vals := map[string]any{"image": map[string]any{"pullPolicy": "Always"}}
		setImage(vals, image)
		if diff := cmp.Diff(map[string]any{"pullPolicy": "Always", "repository": want[0], "tag": want[1]}, vals["image"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", image, diff)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	cases := map[string]struct {
		info apiversion.Info
		says string
	}{
		"the oldest":        {apiversion.Info{Major: "1", Minor: "30", GitVersion: "v1.30.0"}, ""},
		"of a provider":     {apiversion.Info{Major: "1", Minor: "33+", GitVersion: "v1.33.5-eks-1"}, ""},
		"too old":           {apiversion.Info{Major: "1", Minor: "29", GitVersion: "v1.29.14"}, "v1.29.14, and Sublet needs 1.30"},
		"something else":    {apiversion.Info{Major: "2", Minor: "0", GitVersion: "v2.0.0"}, "v2.0.0"},
		"without a version": {apiversion.Info{}, "not a version"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			err := checkVersion(&test.info)
			if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want it to say %q", err, test.says)
			}
		})
	}
}
