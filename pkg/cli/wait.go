package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/cli/forward"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

const (
	// blockedPatience is how long a tenant may say that it cannot go on before
	// that is taken for an answer: what it says may be about what was mended a
	// moment ago. brokenPatience is the same for what sometimes mends itself.
	blockedPatience = time.Second
	brokenPatience  = 10 * time.Second
	// noticePatience is how long people are spared what is usually gone in a
	// moment, such as a volume that is being made.
	noticePatience = 4 * time.Second
	// rightsPatience is how long the manager may take to give an admin his rights
	// on a tenant that he made.
	rightsPatience = 15 * time.Second
	// answerPatience is how long an API that may answer already is given to do so,
	// before people are told that it is waited for.
	answerPatience = time.Second
	// managerPatience is how long the manager may take to notice a tenant,
	// before people are told to look after it.
	managerPatience = 5 * time.Second
)

// waiter waits until a tenant can be used. It follows the tenant and the pod of
// its control plane, and asks the tenant's API itself as soon as its container
// runs: that is what people wait for, and it is true before any status says so.
type waiter struct {
	app      *app
	clients  *hostClients
	progress *progress
	timeout  time.Duration

	tenant *api.Tenant
	pod    *corev1.Pod
	// blind says that the pod may not be seen, so that only the status tells.
	blind bool
	// noticed is what people have been told about already.
	noticed string

	mu sync.Mutex
	// refusal is why the tenant's API did not answer the last time.
	refusal error
}

// get reads the tenant. Whoever makes one below his own may not see it until the
// manager has given him the right.
func (w *waiter) get(ctx context.Context, name string) (*api.Tenant, error) {
	for until := time.Now().Add(rightsPatience); ; {
		tenant, err := w.clients.tenants.Get(ctx, name)
		if !apierrors.IsForbidden(err) || time.Now().After(until) {
			return tenant, err
		}
		pause(ctx, 300*time.Millisecond)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// wait returns the tenant as it is when it can be used.
func (w *waiter) wait(ctx context.Context, tenant *api.Tenant) (*api.Tenant, error) {
	w.tenant = tenant
	parent := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	tenants := follow(ctx, 300*time.Millisecond,
		func(ctx context.Context) (watch.Interface, error) { return w.clients.tenants.Watch(ctx, tenant.Name) },
		func(ctx context.Context) (*api.Tenant, error) { return w.get(ctx, tenant.Name) })
	var pods <-chan change[*corev1.Pod]
	if tenant.Spec.Type == api.VirtualCluster {
		pods = w.followPod(ctx, tenancy.HostNamespace(tenant))
	}
	var answered chan error
	timeout := time.NewTimer(w.timeout)
	defer timeout.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	started, since, last := time.Now(), time.Now(), ""

	for {
		if done, err := w.settled(); done || err != nil {
			return w.tenant, err
		}
		w.progress.Step("%s", w.step())
		if w.podRuns() && answered == nil {
			answered = make(chan error, 1)
			now := w.tenant
			go func() { answered <- w.askAPI(ctx, now) }()
		}
		select {
		case <-parent.Done():
			return nil, context.Cause(parent)
		case <-timeout.C:
			return nil, w.timedOut(ctx)
		case err := <-answered:
			if err == nil {
				return w.tenant, nil
			}
			return nil, err
		case c, ok := <-tenants:
			if !ok {
				return nil, context.Cause(ctx)
			}
			switch {
			case c.err != nil:
				return nil, c.err
			case c.gone:
				return nil, hint(fmt.Errorf("tenant %q was deleted meanwhile", tenant.Name), "Create it again.")
			}
			w.tenant = withKind(c.object)
		case c, ok := <-pods:
			switch {
			case !ok:
				pods = nil
			case c.err != nil:
				// Without the right to see the pod there is still the tenant's status.
				pods, w.blind = nil, true
			case c.gone:
				w.pod = nil
			default:
				w.pod = c.object
			}
		case <-tick.C:
			if !noticed(w.tenant) && time.Since(started) > managerPatience {
				w.notice(fmt.Sprintf("the manager has not looked at the tenant yet; is it running? See: kubectl get pods -n %s", api.SystemNamespace))
			}
		}
		text, patience := w.problem()
		if text != last {
			last, since = text, time.Now()
		}
		if text == "" {
			continue
		}
		if stands := time.Since(since); stands > min(patience, noticePatience) && patience > 0 || stands > noticePatience {
			w.notice(text)
			if patience > 0 && stands > patience {
				return nil, w.failed(errors.New(text))
			}
		}
	}
}

func (w *waiter) notice(text string) {
	if text != w.noticed {
		w.noticed = text
		w.progress.Note("! %s", text)
	}
}

// settled tells whether the status alone says that the waiting is over.
func (w *waiter) settled() (bool, error) {
	if w.tenant.DeletionTimestamp != nil {
		return false, hint(fmt.Errorf("tenant %q is being deleted", w.tenant.Name), "Wait until it is gone (%q), then create it again.", w.app.name+" delete "+w.tenant.Name)
	}
	return (w.tenant.Spec.Type != api.VirtualCluster || w.blind) && ready(w.tenant), nil
}

// ready tells whether a tenant's status is about its present spec and good.
func ready(tenant *api.Tenant) bool {
	return tenant.DeletionTimestamp == nil &&
		tenant.Status.ObservedGeneration >= tenant.Generation &&
		meta.IsStatusConditionTrue(tenant.Status.Conditions, api.ConditionReady)
}

// step says what is being waited for now.
func (w *waiter) step() string {
	name := w.tenant.Name
	switch {
	case ready(w.tenant):
		return fmt.Sprintf("tenant %s: asking its API", name)
	case !noticed(w.tenant) && w.pod == nil:
		return fmt.Sprintf("tenant %s: waiting for the manager", name)
	case w.tenant.Spec.Type != api.VirtualCluster:
		return fmt.Sprintf("tenant %s: making namespace and fence", name)
	case w.pod == nil:
		return fmt.Sprintf("tenant %s: making namespace, fence and control plane", name)
	case w.pod.Spec.NodeName == "":
		return fmt.Sprintf("tenant %s: finding a node for the control plane", name)
	case !w.podRuns():
		return fmt.Sprintf("tenant %s: starting the control plane's container", name)
	}
	return fmt.Sprintf("tenant %s: waiting for its API to answer", name)
}

func (w *waiter) podRuns() bool {
	if w.pod == nil || w.pod.DeletionTimestamp != nil {
		return false
	}
	return slices.ContainsFunc(w.pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.State.Running != nil
	})
}

// noticed tells whether the manager has looked at a tenant.
func noticed(tenant *api.Tenant) bool {
	return tenant.Status.Phase != ""
}

// problem is what stands in the way now, empty when nothing does, and how long
// to hope that it goes away by itself; zero for as long as there is time.
func (w *waiter) problem() (text string, patience time.Duration) {
	if text, patience = tenantProblem(w.tenant); text != "" {
		return text, patience
	}
	if w.pod != nil {
		return podProblem(w.pod)
	}
	return "", 0
}

// tenantProblem is what a tenant's conditions complain about. While the tenant
// is being made, conditions are false that will soon be true, so only the phases
// that mean trouble count. The reasons are those that the manager gives.
func tenantProblem(tenant *api.Tenant) (text string, patience time.Duration) {
	if tenant.Status.Phase != api.PhasePending && tenant.Status.Phase != api.PhaseDegraded {
		return "", 0
	}
	condition := meta.FindStatusCondition(tenant.Status.Conditions, api.ConditionReady)
	if condition == nil || condition.Status != metav1.ConditionFalse || condition.ObservedGeneration != tenant.Generation {
		return "", 0
	}
	switch condition.Reason {
	case "ParentMissing", "ParentReplaced", "ParentDeleting", "Cycle", "TooDeep",
		"NamespaceReserved", "NamespaceTaken", "InvalidLimits", "InvalidVirtualCluster", "NoStorageClass", "KeysLost":
		patience = blockedPatience
	case "ImagePullFailed", "QuotaExceeded", "PodRefused", "ContainerFailed", "Crashing":
		patience = brokenPatience
	case "Starting", "Waiting":
		return "", 0 // being replaced: that is no trouble yet
	}
	return condition.Message, patience
}

// podProblem is the same for what a pod's status complains about.
func podProblem(pod *corev1.Pod) (text string, patience time.Duration) {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse && condition.Reason == corev1.PodReasonUnschedulable {
			return "no node can take the control plane: " + condition.Message, 0
		}
	}
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		waiting := status.State.Waiting
		if waiting == nil {
			continue
		}
		switch waiting.Reason {
		case "ErrImagePull", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "ImageInspectError":
			return fmt.Sprintf("the image %s of the control plane cannot be pulled: %s", status.Image, orElse(waiting.Message, waiting.Reason)), brokenPatience
		case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
			return fmt.Sprintf("the control plane's container cannot start: %s", orElse(waiting.Message, waiting.Reason)), brokenPatience
		case "CrashLoopBackOff":
			if last := status.LastTerminationState.Terminated; last != nil {
				return fmt.Sprintf("the control plane keeps ending (exit code %d): %s", last.ExitCode, orElse(lastLine(last.Message), last.Reason)), brokenPatience
			}
			return "the control plane keeps ending: " + waiting.Message, brokenPatience
		}
	}
	return "", 0
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func (w *waiter) failed(err error) error {
	return hint(fmt.Errorf("tenant %q cannot be used: %w", w.tenant.Name, err),
		"It stays as it is: once that is mended it goes on by itself, or run the same command again.\nMore: %s describe %s. To give it up: %s delete %s.",
		w.app.name, w.tenant.Name, w.app.name, w.tenant.Name)
}

func (w *waiter) timedOut(ctx context.Context) error {
	text, _ := w.problem()
	if text == "" {
		text = "it was last at: " + strings.TrimPrefix(w.step(), "tenant "+w.tenant.Name+": ")
	}
	w.mu.Lock()
	refusal := w.refusal
	w.mu.Unlock()
	if refusal != nil {
		text += fmt.Sprintf(" (%v)", rootOfURLError(refusal))
	}
	if warning := w.lastWarning(ctx); warning != "" && !ready(w.tenant) {
		text += "; last warning: " + warning
	}
	return w.failed(fmt.Errorf("not ready after %s: %s", w.timeout, text))
}

// lastWarning is the newest warning about the tenant's control plane, if one may
// see it.
func (w *waiter) lastWarning(ctx context.Context) string {
	events, err := w.clients.kube.CoreV1().Events(tenancy.HostNamespace(w.tenant)).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning", Limit: 500})
	if err != nil || len(events.Items) == 0 {
		return ""
	}
	newest := slices.MaxFunc(events.Items, func(a, b corev1.Event) int { return eventTime(a).Compare(eventTime(b)) })
	return fmt.Sprintf("%s %s: %s", newest.InvolvedObject.Kind, newest.InvolvedObject.Name, newest.Message)
}

func eventTime(event corev1.Event) time.Time {
	switch {
	case event.Series != nil:
		return event.Series.LastObservedTime.Time
	case !event.LastTimestamp.IsZero():
		return event.LastTimestamp.Time
	case !event.EventTime.IsZero():
		return event.EventTime.Time
	}
	return event.CreationTimestamp.Time
}

func (w *waiter) followPod(ctx context.Context, namespace string) <-chan change[*corev1.Pod] {
	pods := w.clients.kube.CoreV1().Pods(namespace)
	return follow(ctx, 300*time.Millisecond,
		func(ctx context.Context) (watch.Interface, error) {
			return pods.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", api.ControlPlanePod).String()})
		},
		func(ctx context.Context) (*corev1.Pod, error) {
			return pods.Get(ctx, api.ControlPlanePod, metav1.GetOptions{})
		})
}

// askAPI asks the tenant's API until it answers as it should.
func (w *waiter) askAPI(ctx context.Context, tenant *api.Tenant) error {
	namespace := tenancy.HostNamespace(tenant)
	forwarder, err := forward.New(w.clients.config, namespace, api.ControlPlanePod, api.APIServerPort)
	if err != nil {
		return err
	}
	defer forwarder.Close()
	var client *rest.RESTClient
	for {
		if client == nil {
			client, err = w.tenantREST(ctx, tenant, forwarder)
			if apierrors.IsForbidden(err) {
				// Whoever may not forward to the pod cannot ask; the status will tell.
				return w.waitStatus(ctx, tenant.Name)
			}
		}
		if client != nil {
			// Forbidden comes from an API that does not know its roles yet.
			if err = answers(ctx, client); err == nil {
				return nil
			}
		}
		w.mu.Lock()
		w.refusal = err
		w.mu.Unlock()
		// An API that answers at all is nearly there. Until it listens, each try
		// costs the host a new port-forward.
		wait := 100 * time.Millisecond
		if status := apierrors.APIStatus(nil); errors.As(err, &status) {
			wait = 25 * time.Millisecond
		}
		if pause(ctx, wait); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// answersNow tells whether the tenant's API answers already: the status of a
// tenant that was just made says so a second or two later.
func (w *waiter) answersNow(ctx context.Context, tenant *api.Tenant) bool {
	if tenant.Spec.Type != api.VirtualCluster || tenant.DeletionTimestamp != nil || tenant.Status.ObservedGeneration < tenant.Generation {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	forwarder, err := forward.New(w.clients.config, tenancy.HostNamespace(tenant), api.ControlPlanePod, api.APIServerPort)
	if err != nil {
		return false
	}
	defer forwarder.Close()
	client, err := w.tenantREST(ctx, tenant, forwarder)
	return err == nil && answers(ctx, client) == nil
}

// waitStatus waits for the tenant to say that it is ready.
func (w *waiter) waitStatus(ctx context.Context, name string) error {
	for {
		tenant, err := w.clients.tenants.Get(ctx, name)
		if err != nil {
			return err
		}
		if ready(tenant) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// tenantREST makes a client of the tenant's API through the forward.
func (w *waiter) tenantREST(ctx context.Context, tenant *api.Tenant, forwarder *forward.Forwarder) (*rest.RESTClient, error) {
	entry, err := w.app.tenantKubeconfig(ctx, w.clients, tenant, "")
	if err != nil {
		return nil, err
	}
	if _, err := forwarder.Connect(); err != nil {
		return nil, err
	}
	config, err := clientcmd.NewDefaultClientConfig(*entry, nil).ClientConfig()
	if err != nil {
		return nil, err
	}
	config.Host = localServer(api.APIServerPort)
	config.Dial = forwarder.DialContext
	config.Timeout = 5 * time.Second
	config.QPS = -1 // we pause by ourselves
	return rest.UnversionedRESTClientFor(unversioned(config))
}

// answers tells whether an API is ready and answers an everyday question.
func answers(ctx context.Context, client rest.Interface) error {
	var status int
	if err := client.Get().AbsPath("/readyz").Do(ctx).StatusCode(&status).Error(); err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("/readyz says %d", status)
	}
	return client.Get().AbsPath("/api/v1/namespaces").Param("limit", "1").Do(ctx).Error()
}

// change is what happened to an object that is followed.
type change[T any] struct {
	object T
	gone   bool
	err    error
}

// follow tells what an object is now and whenever it changes, by a watch, or by
// asking again and again where watching is not allowed.
func follow[T any](ctx context.Context, poll time.Duration, start func(context.Context) (watch.Interface, error), get func(context.Context) (T, error)) <-chan change[T] {
	changes := make(chan change[T])
	send := func(c change[T]) bool {
		select {
		case changes <- c:
			return true
		case <-ctx.Done():
			return false
		}
	}
	go func() {
		defer close(changes)
		for ctx.Err() == nil {
			w, err := start(ctx)
			if err == nil {
				// What was deleted before a watch began does not show in it.
				if _, err := get(ctx); apierrors.IsNotFound(err) && !notInstalled(err) && !send(change[T]{gone: true}) {
					w.Stop()
					return
				}
			}
			if apierrors.IsForbidden(err) {
				object, getErr := get(ctx)
				switch {
				case apierrors.IsNotFound(getErr) && !notInstalled(getErr):
					send(change[T]{gone: true})
				case getErr != nil:
					send(change[T]{err: getErr})
					return
				default:
					send(change[T]{object: object})
				}
				pause(ctx, poll)
				continue
			}
			if err != nil {
				if transient(err) {
					pause(ctx, poll)
					continue
				}
				send(change[T]{err: err})
				return
			}
			for event := range w.ResultChan() {
				object, ok := event.Object.(T)
				if !ok {
					break // an error that ends the watch, such as a version that is gone
				}
				if !send(change[T]{object: object, gone: event.Type == watch.Deleted}) {
					break
				}
			}
			w.Stop()
			pause(ctx, poll)
		}
	}()
	return changes
}

func transient(err error) bool {
	return unreachable(err) || apierrors.IsTooManyRequests(err) || apierrors.IsServerTimeout(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
