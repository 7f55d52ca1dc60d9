//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/bench/proc"
	"github.com/sublet-dev/sublet/bench/report"
	"github.com/sublet-dev/sublet/hack/images"
	"github.com/sublet-dev/sublet/pkg/kubeconfig"
)

// densityReserve is how much memory, in MiB, must be left for one tenant more: what
// comes after that is the kernel's choice of what to end, on the whole machine.
const densityReserve = 768

// densityPoint is what was seen with so many tenants.
type densityPoint struct {
	Tenants int `json:"tenants"`
	// RssAnon and Pss are of each tenant, in MiB.
	RssAnon report.Measured `json:"rss_anon_mib"`
	Pss     report.Measured `json:"pss_mib"`
	// CPU is of all tenants together, NodeCPU of all else on the node: its control
	// plane, kubelet, containerd with its shims, the manager. In millicores.
	CPU     float64 `json:"cpu_m"`
	NodeCPU float64 `json:"node_cpu_m"`
	// Create and Pod are of the tenants that came with this step, in seconds: until
	// they can be used, and until the pod of their Deployment is available then.
	Create report.Measured `json:"create_s"`
	Pod    report.Measured `json:"pod_s"`
	// GetNamespaces is of every tenant, in milliseconds, with and without what
	// kubectl keeps of the API's description.
	GetNamespaces      report.Measured `json:"get_ns_ms"`
	GetNamespacesFirst report.Measured `json:"get_ns_first_ms"`
	// Manager is its RssAnon, Available what the machine has left, in MiB.
	Manager   float64 `json:"manager_rss_anon_mib"`
	Available float64 `json:"available_mib"`
}

// densityReport is what the details of all its metrics are.
type densityReport struct {
	Points []densityPoint `json:"points"`
	// Reached is how many tenants there were, Broke what went wrong with the next;
	// empty when the bound was reached.
	Reached int    `json:"reached"`
	Broke   string `json:"broke,omitempty"`
	// Requests are what each control plane asked for.
	Requests string `json:"requests"`
}

// measureDensity makes tenants, one after the other, each with a Deployment and a
// Service, until something breaks.
func measureDensity(ctx context.Context, b *bench) ([]result, error) {
	steps, err := densitySteps(b.steps, b.most)
	if err != nil {
		return nil, err
	}
	d := &crowd{bench: b, report: densityReport{Requests: b.crowdCPU + " CPU and " + b.crowdMemory}}
	if d.dir, err = os.MkdirTemp("", "bench-density-"); err != nil {
		return nil, err
	}
	b.undo = append(b.undo, func(context.Context) error { return os.RemoveAll(d.dir) })
	for _, step := range steps {
		point, err := d.grow(ctx, step)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			d.report.Broke = fmt.Sprintf("with %d tenants: %v", len(d.tenants)+1, err)
			fmt.Fprintln(os.Stderr, "  broke", d.report.Broke)
			// Those that are there may well be in order, if some came since the last point.
			if len(d.create) == 0 {
				break
			}
			if point, err = d.grow(ctx, len(d.tenants)); err != nil {
				d.report.Broke += fmt.Sprintf("; and then those before: %v", err)
				break
			}
		}
		d.report.Points = append(d.report.Points, point)
		fmt.Fprintf(os.Stderr, "  %d tenants: %.1f MiB each, %.0f m of CPU together (the node %.0f m), created in %.1f s, kubectl get ns %.0f ms (at most %.0f), %.0f MiB left\n",
			point.Tenants, point.RssAnon.Value, point.CPU, point.NodeCPU, point.Create.Value, point.GetNamespaces.Value, point.GetNamespaces.Spread.Max, point.Available)
		if d.report.Broke != "" {
			break
		}
	}
	d.report.Reached = len(d.tenants)
	if len(d.report.Points) == 0 {
		return nil, errors.New(d.report.Broke)
	}
	last := d.report.Points[len(d.report.Points)-1]
	var results []result
	for _, metric := range []struct {
		name string
		of   report.Measured
	}{
		{"density_tenants", report.Measure([]float64{float64(d.report.Reached)})},
		{"density_rss_anon_mib", last.RssAnon},
		{"density_pss_mib", last.Pss},
		{"density_cpu_m", report.Measure([]float64{last.CPU})},
		{"density_create_s", last.Create},
		{"density_get_ns_ms", last.GetNamespaces},
	} {
		r := newResult(metric.name, metric.of.Samples, d.report)
		if metric.name == "density_get_ns_ms" {
			// Each of them is to answer.
			r.Value = r.Spread.Max
		}
		results = append(results, r)
	}
	return results, nil
}

// densitySteps are the numbers of tenants to stop at, up to a bound.
func densitySteps(list string, bound int) ([]int, error) {
	var steps []int
	for text := range strings.SplitSeq(list, ",") {
		step, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || step < 1 || len(steps) > 0 && step <= steps[len(steps)-1] {
			return nil, fmt.Errorf("-steps is %q; it must be numbers that grow, such as 1,10,50", list)
		}
		if step < bound {
			steps = append(steps, step)
		}
	}
	return append(steps, bound), nil
}

// crowd are tenants that are awake at once.
type crowd struct {
	*bench
	dir     string
	tenants []*tenant
	// create and pods are the seconds that those took that came since the last point.
	create, pods []float64
	report       densityReport
}

// grow makes tenants until there are so many, and looks at all of them.
func (d *crowd) grow(ctx context.Context, to int) (densityPoint, error) {
	p := densityPoint{Tenants: to}
	for len(d.tenants) < to {
		available, err := proc.MemAvailable()
		if err != nil {
			return p, err
		}
		if available < densityReserve*mib {
			return p, fmt.Errorf("the machine has %.0f MiB of memory left, which is too little for one more", available/mib)
		}
		name := fmt.Sprintf("bench-crowd-%d", len(d.tenants)+1)
		start := time.Now()
		t, err := d.add(ctx, name)
		if err != nil {
			return p, d.explain(ctx, name, err)
		}
		took := time.Since(start).Seconds()
		start = time.Now()
		if err := d.employ(ctx, t); err != nil {
			return p, d.explain(ctx, name, err)
		}
		d.create, d.pods = append(d.create, took), append(d.pods, time.Since(start).Seconds())
		d.tenants = append(d.tenants, t)
		if n := len(d.tenants); n%5 == 0 {
			fmt.Fprintf(os.Stderr, "  %d of %d tenants, the last after %.1f s\n", n, to, took)
		}
	}
	fmt.Fprintf(os.Stderr, "  leaving %d tenants alone for %v\n", to, d.crowdSettle+d.crowdIdle)
	sleep(ctx, d.crowdSettle)
	if err := d.awake(ctx); err != nil {
		return p, err
	}
	node, err := d.nodeCPU()
	if err != nil {
		return p, err
	}
	var all []idlers
	for _, t := range d.tenants {
		all = append(all, t)
	}
	start := time.Now()
	used := cpuOver(ctx, d.crowdIdle, all)
	if used.err != nil {
		return p, used.err
	}
	after, err := d.nodeCPU()
	if err != nil {
		return p, err
	}
	for _, m := range used.millicores {
		p.CPU += m
	}
	p.NodeCPU = (after-node)/time.Since(start).Seconds()*1000 - p.CPU
	if err := d.look(ctx, &p); err != nil {
		return p, err
	}
	p.Create, p.Pod = report.Measure(d.create), report.Measure(d.pods)
	d.create, d.pods = nil, nil
	return p, d.awake(ctx)
}

// add makes a tenant that asks for little.
func (d *crowd) add(ctx context.Context, name string) (*tenant, error) {
	d.bench.tenants = append(d.bench.tenants, name)
	manifest := fmt.Sprintf(`{"apiVersion":%q,"kind":"Tenant","metadata":{"name":%q},"spec":{"type":"VirtualCluster",
		"virtualCluster":{"resources":{"requests":{"cpu":%q,"memory":%q}}}}}`, api.GroupVersion.String(), name, d.crowdCPU, d.crowdMemory)
	cmd := d.sublet(ctx, "create", "--timeout", patience.String(), "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		// Its progress is of no interest, only how it ended.
		_, end, _ := strings.Cut(string(out), "\nerror: ")
		return nil, fmt.Errorf("sublet create: %w\n%s", err, end)
	}
	return d.open(ctx, name)
}

// employ gives the tenant a Deployment and a Service, and waits until both are there.
func (d *crowd) employ(ctx context.Context, t *tenant) error {
	image, err := images.Builder{}.Reference(images.Pause)
	if err != nil {
		return err
	}
	labels := map[string]string{"app": "bench"}
	_, err = t.client.AppsV1().Deployments(namespace).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "bench"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: ptr.To[int64](0),
					Containers:                    []corev1.Container{{Name: "main", Image: image, ImagePullPolicy: corev1.PullIfNotPresent}},
				},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = t.client.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "bench"},
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return poll(ctx, 50*time.Millisecond, "the Deployment to be available", func() (bool, error) {
		deployment, err := t.client.AppsV1().Deployments(namespace).Get(ctx, "bench", metav1.GetOptions{})
		return err == nil && deployment.Status.AvailableReplicas == 1, err
	})
}

// awake returns an error when a control plane or a pod of a tenant has ended.
func (d *crowd) awake(ctx context.Context) error {
	for _, t := range d.tenants {
		pods, err := d.host.CoreV1().Pods(t.name).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range pods.Items {
			pod := &pods.Items[i]
			for _, status := range pod.Status.ContainerStatuses {
				if status.RestartCount == 0 && status.Ready {
					continue
				}
				reason := "it is not ready"
				if ended := status.LastTerminationState.Terminated; ended != nil {
					reason = fmt.Sprintf("%s, exit code %d: %s", ended.Reason, ended.ExitCode, ended.Message)
				}
				return d.explain(ctx, t.name, fmt.Errorf("pod %s of tenant %s was started %d times more: %s", pod.Name, t.name, status.RestartCount, reason))
			}
		}
	}
	return nil
}

// look takes memory and answers of all tenants.
func (d *crowd) look(ctx context.Context, p *densityPoint) error {
	var anon, pss, first, again []float64
	for _, t := range d.tenants {
		m, err := process(t.pid).memory()
		if err != nil {
			return err
		}
		anon, pss = append(anon, m.anon), append(pss, m.pss)
	}
	for _, t := range d.tenants {
		for _, into := range []*[]float64{&first, &again} {
			took, err := d.getNamespaces(ctx, t)
			if err != nil {
				return d.explain(ctx, t.name, err)
			}
			*into = append(*into, milliseconds(took))
		}
		if err := os.RemoveAll(filepath.Join(d.dir, "cache")); err != nil {
			return err
		}
	}
	p.RssAnon, p.Pss = report.Measure(anon), report.Measure(pss)
	p.GetNamespacesFirst, p.GetNamespaces = report.Measure(first), report.Measure(again)
	manager, err := d.managerProcess(ctx)
	if err != nil {
		return err
	}
	m, err := process(manager).memory()
	if err != nil {
		return err
	}
	p.Manager = m.anon
	available, err := proc.MemAvailable()
	p.Available = available / mib
	return err
}

// getNamespaces runs kubectl on the node, against the tenant's pod, so that nothing
// but the tenant and kubectl itself takes time.
func (d *crowd) getNamespaces(ctx context.Context, t *tenant) (time.Duration, error) {
	content, err := kubeconfig.Marshal(kubeconfig.Entry{
		Name:          t.name,
		Server:        fmt.Sprintf("https://%s:%d", t.pod.Status.PodIP, api.APIServerPort),
		TLSServerName: "localhost",
		CA:            t.config.CAData,
		ClientCert:    t.config.CertData,
		ClientKey:     t.config.KeyData,
		Token:         t.config.BearerToken,
	})
	if err != nil {
		return 0, err
	}
	file := filepath.Join(d.dir, "kubeconfig")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(d.sandbox), "--net", "--",
		filepath.Join(d.root, ".cache/bin/kubectl"), "--kubeconfig", file, "--cache-dir", filepath.Join(d.dir, "cache"), "get", "ns")
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("kubectl get ns in %s: %w\n%s", t.name, err, out)
	}
	return time.Since(start), nil
}

// nodeCPU is the CPU time of all that runs on the node, tenants and their pods too,
// in seconds: that of its control group.
func (d *crowd) nodeCPU() (float64, error) {
	return proc.CgroupCPUSeconds(d.sandbox)
}

// explain adds what the host knows about a tenant that broke.
func (d *crowd) explain(ctx context.Context, name string, err error) error {
	var known []string
	for _, arguments := range [][]string{
		{"get", "tenant", name, "-o", `jsonpath={range .status.conditions[?(@.status!="True")]}{.type}: {.message}{"\n"}{end}`},
		{"get", "pods", "-n", name, "-o", "wide"},
		{"get", "events", "-n", name, "--field-selector", "type=Warning", "-o", `jsonpath={range .items[*]}{.involvedObject.name}: {.reason}: {.message}{"\n"}{end}`},
	} {
		cmd := exec.CommandContext(ctx, filepath.Join(d.root, ".cache/bin/kubectl"), append([]string{"--kubeconfig", d.kubeconfig}, arguments...)...)
		if out, failed := cmd.CombinedOutput(); failed == nil {
			known = append(known, strings.TrimSpace(string(out)))
		}
	}
	if available, failed := proc.MemAvailable(); failed == nil {
		known = append(known, fmt.Sprintf("the machine has %.0f MiB of memory left", available/mib))
	}
	known = slices.DeleteFunc(known, func(s string) bool { return s == "" })
	return fmt.Errorf("%w\n%s", err, strings.Join(known, "\n"))
}
