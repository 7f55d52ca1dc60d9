// Package hosts finds out which names of hosts are claimed in the namespaces of
// more than one tenant, by Ingresses and HTTPRoutes. Who came later is told; which
// of them is served is up to the ingress controller.
package hosts

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Key names an object that claims hosts.
type Key struct {
	Kind string
	types.NamespacedName
}

// Claim is what an object claims.
type Claim struct {
	// APIVersion and UID are the object's.
	APIVersion string
	UID        types.UID
	Created    time.Time
	// Shown is what its people call it: a synced object has another name on the
	// host.
	Shown string
	// Hosts are the names, each once and in order. An object that claims all there are names
	// none, and is in nobody's way here.
	Hosts []string
}

// Claims are all that is claimed on the host. The zero value is empty.
type Claims struct {
	mu     sync.Mutex
	claims map[Key]Claim
	byHost map[string]map[Key]bool
}

// Set notes what an object claims now, or that it is gone, and returns the objects
// for which that may make a difference, itself included, in order.
func (c *Claims) Set(key Key, claim *Claim) []Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.claims == nil {
		c.claims, c.byHost = map[Key]Claim{}, map[string]map[Key]bool{}
	}
	touched := map[Key]bool{key: true}
	for _, host := range c.claims[key].Hosts {
		maps.Copy(touched, c.byHost[host])
		delete(c.byHost[host], key)
		if len(c.byHost[host]) == 0 {
			delete(c.byHost, host)
		}
	}
	delete(c.claims, key)
	if claim != nil {
		c.claims[key] = *claim
		for _, host := range claim.Hosts {
			if c.byHost[host] == nil {
				c.byHost[host] = map[Key]bool{}
			}
			c.byHost[host][key] = true
			maps.Copy(touched, c.byHost[host])
		}
	}
	return slices.SortedFunc(maps.Keys(touched), compareKeys)
}

// Late are the hosts that an object claims and that were claimed before in another
// namespace; what the object is, too.
func (c *Claims) Late(key Key) ([]string, Claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lateLocked(key), c.claims[key]
}

func (c *Claims) lateLocked(key Key) []string {
	var late []string
	for _, host := range c.claims[key].Hosts {
		// A namespace has a host since its first object that claims it.
		first := slices.MinFunc(slices.Collect(maps.Keys(c.byHost[host])), c.order)
		if first.Namespace != key.Namespace {
			late = append(late, host)
		}
	}
	return late
}

// order is that in which objects came: what was made in the same second goes by
// its name.
func (c *Claims) order(a, b Key) int {
	return cmp.Or(c.claims[a].Created.Compare(c.claims[b].Created), compareKeys(a, b))
}

// LateIn tells about all objects of a namespace that came later; nothing if there
// are none. It names nothing of others'.
func (c *Claims) LateIn(namespace string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var keys []Key
	for key := range c.claims {
		if key.Namespace == namespace {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compareKeys)
	var all []string
	for _, key := range keys {
		if late := c.lateLocked(key); len(late) > 0 {
			all = append(all, fmt.Sprintf("%s (%s %s)", strings.Join(late, ", "), key.Kind, c.claims[key].Shown))
		}
	}
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("somebody else claimed these host names before: %s. %s", strings.Join(all, "; "), advice)
}

// advice is what to do about it.
const advice = "Which of them is served is up to the ingress controller: choose another name, or ask whoever manages the limits.hosts of tenants whose it is"

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}
