package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// gettersAtOnce is how many tenants are asked for at a time.
const gettersAtOnce = 8

// visible lists the tenants that one may see: all, or those whose member one is.
// Nobody but the platform's people may list; but the host tells everybody which
// names are in the rules that he has.
func (a *app) visible(ctx context.Context, clients *hostClients) (*api.TenantList, error) {
	list, err := clients.tenants.List(ctx)
	if !apierrors.IsForbidden(err) {
		return list, err
	}
	names := namesInRules(ctx, clients)
	if len(names) == 0 {
		return nil, err
	}
	found, errs := make([]*api.Tenant, len(names)), make([]error, len(names))
	slots := make(chan struct{}, gettersAtOnce)
	var group sync.WaitGroup
	for i, name := range names {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			found[i], errs[i] = clients.tenants.Get(ctx, name)
		})
	}
	group.Wait()
	mine := &api.TenantList{}
	mine.SetGroupVersionKind(api.GroupVersion.WithKind("TenantList"))
	for i, err := range errs {
		// A rule may be about a tenant that is gone.
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		mine.Items = append(mine.Items, *found[i])
	}
	return mine, nil
}

// namesInRules are the tenants that the rules of the person name; none when the
// host does not say.
func namesInRules(ctx context.Context, clients *hostClients) []string {
	review, err := clients.kube.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx,
		&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: metav1.NamespaceDefault}},
		metav1.CreateOptions{})
	if err != nil {
		return nil
	}
	var names []string
	for _, rule := range review.Status.ResourceRules {
		if slices.Contains(rule.APIGroups, api.GroupName) && slices.Contains(rule.Resources, tenantResource) && slices.Contains(rule.Verbs, "get") {
			names = append(names, rule.ResourceNames...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// memberText is a member as people write it: group:NAME.
func memberText(kind, namespace, name string) string {
	if namespace != "" {
		name = namespace + "/" + name
	}
	return strings.ToLower(kind) + ":" + name
}

// fromText says where something comes from.
func fromText(from []string, tenant string) string {
	switch {
	case len(from) == 0:
		return "default"
	case slices.Equal(from, []string{tenant}):
		return "itself"
	}
	return strings.Join(from, ", ")
}

// countOf says how many of something there are.
func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
