package kinds

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Forms of the values of annotations.
const (
	formBool     = `(true|false)`
	formNumber   = `[0-9]{1,9}`
	formSwitch   = `(on|off)`
	formSize     = `[0-9]{1,9}[kKmMgG]?`
	formDuration = `[0-9]{1,9}(us|ms|s|m|h|d)?`
	formToken    = `[A-Za-z0-9_-]{1,63}`
	formTokens   = `[A-Za-z0-9_-]+(, ?[A-Za-z0-9_-]+)*`
	formRanges   = `[0-9A-Fa-f.:/]+(, ?[0-9A-Fa-f.:/]+)*`
	formPath     = `/[A-Za-z0-9/_.$-]{0,255}`
)

// IngressAnnotations are the annotations of Ingresses that ingress controllers
// act upon and that a tenant may use, with the form that their values must have,
// as a regular expression for all of the value.
//
// The list is one of what is allowed, as nobody can know what is dangerous in
// every controller there is or will be. What is on it changes how the tenant's
// own requests are served, and its value cannot be taken for anything else in a
// configuration. Left out is what names objects (auth-secret, middlewares,
// groups of load balancers), what has the controller call somebody
// (auth-url, mirror-target, upstream-vhost), what claims host names beyond those
// of the rules (server-alias), what is configuration as such (snippets), and what
// configures a cloud (alb.…, networking.gke.io).
func IngressAnnotations() map[string]string {
	forms := map[string]string{ingressClassAnnotation: `[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?`}
	add := func(domain, form string, names ...string) {
		for _, name := range names {
			forms[domain+"/"+name] = form
		}
	}
	const nginx = "nginx.ingress.kubernetes.io"
	add(nginx, formBool, "ssl-redirect", "force-ssl-redirect", "preserve-trailing-slash", "enable-cors", "cors-allow-credentials",
		"use-regex", "canary", "enable-access-log", "service-upstream", "ssl-passthrough", "session-cookie-change-on-failure")
	add(nginx, formSize, "proxy-body-size", "proxy-buffer-size", "client-body-buffer-size")
	add(nginx, formNumber, "proxy-connect-timeout", "proxy-read-timeout", "proxy-send-timeout", "proxy-buffers-number",
		"session-cookie-expires", "session-cookie-max-age", "cors-max-age", "limit-connections", "limit-rps", "limit-rpm",
		"limit-burst-multiplier", "limit-rate", "limit-rate-after", "canary-weight", "canary-weight-total")
	add(nginx, formSwitch, "proxy-buffering", "proxy-request-buffering")
	add(nginx, `1\.[01]`, "proxy-http-version")
	add(nginx, `(HTTP|HTTPS|GRPC|GRPCS|AUTO_HTTP)`, "backend-protocol")
	add(nginx, `cookie`, "affinity")
	add(nginx, `(balanced|persistent)`, "affinity-mode")
	add(nginx, `(None|Lax|Strict)`, "session-cookie-samesite")
	add(nginx, `(round_robin|ewma)`, "load-balance")
	add(nginx, formToken, "session-cookie-name", "canary-by-header", "canary-by-header-value", "canary-by-cookie")
	add(nginx, formTokens, "cors-allow-methods", "cors-allow-headers", "cors-expose-headers")
	add(nginx, `[A-Za-z0-9:/.*-]+(, ?[A-Za-z0-9:/.*-]+)*`, "cors-allow-origin")
	add(nginx, formRanges, "whitelist-source-range", "allowlist-source-range", "denylist-source-range")
	add(nginx, formPath, "rewrite-target", "app-root")

	add("nginx.org", formSize, "client-max-body-size")
	add("nginx.org", formDuration, "proxy-connect-timeout", "proxy-read-timeout", "proxy-send-timeout")
	add("nginx.org", formBool, "redirect-to-https", "proxy-buffering")

	add("traefik.ingress.kubernetes.io", formBool, "router.tls", "service.sticky.cookie", "service.sticky.cookie.secure", "service.sticky.cookie.httponly")
	add("traefik.ingress.kubernetes.io", `(web|websecure)(, ?(web|websecure))?`, "router.entrypoints")
	add("traefik.ingress.kubernetes.io", formToken, "service.sticky.cookie.name")

	for _, haproxy := range []string{"haproxy.org", "ingress.kubernetes.io", "haproxy-ingress.github.io"} {
		add(haproxy, formBool, "ssl-redirect", "ssl-passthrough")
		add(haproxy, formDuration, "timeout-client", "timeout-connect", "timeout-server", "timeout-http-request", "timeout-queue", "timeout-tunnel")
		add(haproxy, formRanges, "allow-list", "deny-list", "whitelist-source-range", "allowlist-source-range", "denylist-source-range")
	}
	return forms
}

// IngressAnnotationDomains are what the keys begin with, up to the slash, that
// ingress controllers are known to act upon: exactly, or after a dot. "kubernetes.io"
// counts only with a name that begins with "ingress.".
func IngressAnnotationDomains() []string {
	return []string{
		"ingress.kubernetes.io", "nginx.org", "nginx.com", "haproxy.org", "haproxy.com", "haproxy-ingress.github.io",
		"traefik.io", "containo.us", "konghq.com", "projectcontour.io", "getambassador.io", "apisix.apache.org", "istio.io",
		"cilium.io", "zalando.org", "higress.io", "voyager.appscode.com", "networking.gke.io", "cloud.google.com", "gcp.kubernetes.io",
		"ingress.kubernetes.azure.com", "citrix.com", "netscaler.com", "f5.com", "vmware.com", "oraclecloud.com", "ngrok.com", "pomerium.io",
	}
}

// ForIngressControllers tells whether some ingress controller is known to act
// upon an annotation of this key.
func ForIngressControllers(key string) bool {
	domain, name, ok := strings.Cut(key, "/")
	if !ok {
		return false
	}
	if domain == "kubernetes.io" {
		return strings.HasPrefix(name, "ingress.")
	}
	return slices.ContainsFunc(IngressAnnotationDomains(), func(known string) bool {
		return domain == known || strings.HasSuffix(domain, "."+known)
	})
}

// ingressAnnotations are those that cross. One that a controller might act upon
// and that is not allowed is refused: without it the Ingress would be served
// otherwise than it says, without the authentication that it asks for, say. All
// others mean nothing to a controller, and stay behind.
func ingressAnnotations(virtual map[string]string) (map[string]string, error) {
	forms := IngressAnnotations()
	out := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(virtual)) {
		value := virtual[key]
		form, allowed := forms[key]
		switch {
		case allowed && regexp.MustCompile(`^`+form+`$`).MatchString(value):
			out[key] = value
		case allowed:
			return nil, fmt.Errorf("annotation %q: the value %q may not be used in this cluster: it must be of the form %s", key, value, form)
		case ForIngressControllers(key):
			return nil, fmt.Errorf("annotation %q may not be used in this cluster: it acts upon an ingress controller that serves others, too", key)
		}
	}
	return out, nil
}
