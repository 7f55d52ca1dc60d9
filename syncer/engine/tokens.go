package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// A token is renewed when 80 % of its life is over, and at least once a day,
// as the kubelet does.
const (
	tokenLifeUsed = 0.8
	tokenMaxAge   = 24 * time.Hour
)

// refreshTokens mints the tokens of an object that is on the host, if they are
// not there or old, and comes back before they expire.
//
//	Kind.Tokens ─► TokenRequest (tenant's API) ─► host Secret, owned by the host object
func (e *Engine) refreshTokens(ctx context.Context, r request) error {
	bound := e.justBound(r)
	virtual := r.kind.virtual.object(r.Namespace, r.Name)
	if virtual == nil || virtual.GetDeletionTimestamp() != nil {
		return nil
	}
	tokens := r.kind.Tokens(virtual)
	if len(tokens) == 0 && bound {
		// The cache may be behind, and a kubelet waits already.
		found, err := r.kind.virtual.get(ctx, r.Namespace, r.Name)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read virtual %s %q: %w", r.kind.Resource, r.NamespacedName, err)
		}
		virtual, tokens = found, r.kind.Tokens(found)
	}
	if len(tokens) == 0 {
		return nil
	}
	host := e.hostObject(r)
	if host == nil {
		return nil // Its arrival in the cache brings us back.
	}
	if e.stale(translate.Input[translate.Object]{Virtual: virtual, Host: host}) || host.GetDeletionTimestamp() != nil {
		return nil
	}
	name := translate.TokenSecretName(r.Namespace, r.Name)
	if left := e.tokens.behind(types.NamespacedName{Namespace: e.Tenant.HostNamespace, Name: name}); left > 0 {
		e.tokenQueue.AddAfter(r, left)
		return nil
	}
	have, _ := e.tokens.object(e.Tenant.HostNamespace, name).(*corev1.Secret)
	if have != nil && e.lasting(r, have, host, tokens) {
		return nil
	}
	if have != nil && have.Immutable != nil && *have.Immutable {
		// Not by us. It can only be made anew.
		if err := e.tokens.delete(ctx, have, nil); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete the tokens of %s %q: %w", r.kind.Resource, r.NamespacedName, err)
		}
		return errAgain
	}
	want, err := e.mint(ctx, r, virtual, host, tokens)
	if err != nil {
		return err
	}
	if have == nil {
		_, err = e.tokens.create(ctx, want)
		if apierrors.IsAlreadyExists(err) {
			have, err = e.foundTokens(ctx, want)
		}
	}
	if err == nil && have != nil {
		want.ResourceVersion = have.ResourceVersion
		_, err = e.tokens.update(ctx, want, "")
	}
	if apierrors.IsNotFound(err) {
		return errAgain // Collected with its owner, an earlier host object.
	}
	if refusal(err) {
		return e.refuse(r, virtual, "HostRefused", err)
	}
	if err != nil {
		return fmt.Errorf("write the tokens of %s %q: %w", r.kind.Resource, r.NamespacedName, err)
	}
	return nil // The Secret comes back as a change, and sets the alarm.
}

// noteBound has tokens looked at that may not have been issued before an object
// was bound.
func (e *Engine) noteBound(r request) {
	if r.kind.Tokens == nil {
		return
	}
	e.mu.Lock()
	e.bound[r] = true
	e.mu.Unlock()
	e.tokenQueue.Add(r)
}

// justBound tells, once, that an object has been bound.
func (e *Engine) justBound(r request) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	bound := e.bound[r]
	delete(e.bound, r)
	return bound
}

// over tells whether an object needs no tokens any more.
func (e *Engine) over(r request) bool {
	virtual := r.kind.virtual.object(r.Namespace, r.Name)
	return virtual == nil || virtual.GetDeletionTimestamp() != nil
}

// foundTokens reads a Secret that the cache does not know yet.
func (e *Engine) foundTokens(ctx context.Context, want *corev1.Secret) (*corev1.Secret, error) {
	found, err := e.tokens.get(ctx, want.Namespace, want.Name)
	if err != nil {
		return nil, err
	}
	if found.GetAnnotations()[api.AnnotationTokensOf] == "" {
		return nil, fmt.Errorf("the Secret %q on the host is not the tenant's: ask whoever runs the host to delete it", want.Name)
	}
	return found.(*corev1.Secret), nil
}

// lasting tells whether a Secret need not be renewed yet, and sets the alarm.
func (e *Engine) lasting(r request, have *corev1.Secret, host translate.Object, tokens []translate.Token) bool {
	refresh, err := time.Parse(time.RFC3339, have.Annotations[api.AnnotationTokensRefresh])
	if err != nil {
		return false
	}
	for _, token := range tokens {
		if len(have.Data[token.Key]) == 0 {
			return false
		}
	}
	if have.Annotations[api.AnnotationTokensSum] != checksum(have.Data) {
		return false // Somebody has changed it.
	}
	if !slices.ContainsFunc(have.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == host.GetUID() }) {
		return false
	}
	left := refresh.Sub(e.Clock.Now())
	if left <= 0 {
		return false
	}
	e.tokenQueue.AddAfter(r, left)
	return true
}

func (e *Engine) mint(ctx context.Context, r request, virtual, host translate.Object, tokens []translate.Token) (*corev1.Secret, error) {
	apiVersion, kindName := r.kind.GroupVersionKind.ToAPIVersionAndKind()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name:      translate.TokenSecretName(r.Namespace, r.Name),
			Namespace: e.Tenant.HostNamespace,
		},
		Data: map[string][]byte{},
	}
	e.Tenant.Mark(&secret.ObjectMeta, virtual)
	secret.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kindName, Name: host.GetName(), UID: host.GetUID()}}

	now := e.Clock.Now()
	refresh := now.Add(tokenMaxAge)
	for _, token := range tokens {
		spec := token.Spec
		spec.BoundObjectRef = &authenticationv1.BoundObjectReference{
			APIVersion: apiVersion, Kind: kindName, Name: virtual.GetName(), UID: virtual.GetUID(),
		}
		issued, err := e.accounts.token(ctx, r.Namespace, token.ServiceAccount, &authenticationv1.TokenRequest{Spec: spec})
		if err != nil {
			e.events.Eventf(virtual, corev1.EventTypeWarning, "FailedToken", "cannot issue a token for service account %q: %v", token.ServiceAccount, err)
			return nil, fmt.Errorf("token for service account %q of %s %q: %w", token.ServiceAccount, r.kind.Resource, r.NamespacedName, err)
		}
		secret.Data[token.Key] = []byte(issued.Status.Token)
		life := issued.Status.ExpirationTimestamp.Sub(now)
		if at := now.Add(time.Duration(float64(life) * tokenLifeUsed)); at.Before(refresh) {
			refresh = at
		}
	}
	secret.Annotations[api.AnnotationTokensOf] = kindName
	secret.Annotations[api.AnnotationTokensSum] = checksum(secret.Data)
	secret.Annotations[api.AnnotationTokensRefresh] = refresh.UTC().Format(time.RFC3339)
	return secret, nil
}

// tokensChanged looks after a Secret with tokens that has come, changed or
// gone.
func (e *Engine) tokensChanged(secret metav1.Object) {
	annotations := secret.GetAnnotations()
	for _, k := range e.kinds {
		if k.Tokens != nil && k.GroupVersionKind.Kind == annotations[api.AnnotationTokensOf] {
			e.tokenQueue.Add(request{k, types.NamespacedName{
				Namespace: annotations[api.AnnotationVirtualNamespace],
				Name:      annotations[api.AnnotationVirtualName],
			}})
		}
	}
}

// checksum is over all keys and values.
func checksum(data map[string][]byte) string {
	sum := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(data)) {
		fmt.Fprintf(sum, "%d:%s%d:", len(key), key, len(data[key]))
		sum.Write(data[key])
	}
	return hex.EncodeToString(sum.Sum(nil))
}
