package kinds

import (
	"fmt"
	"slices"
	"strings"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// hostAllowed returns an error for a host name that the tenant may not claim; the
// empty name is all there are. path is the field.
func hostAllowed(tenant translate.Tenant, path, host string) error {
	if slices.ContainsFunc(tenant.Hosts, func(pattern string) bool { return api.HostCovers(pattern, host) }) {
		return nil
	}
	if len(tenant.Hosts) == 0 {
		return fmt.Errorf("%s: host names may not be claimed in this cluster; ask whoever manages the tenant for some", path)
	}
	allowed := strings.Join(tenant.Hosts, ", ")
	if host == "" {
		return fmt.Errorf("%s names no host, which claims all there are; in this cluster may be claimed: %s", path, allowed)
	}
	return fmt.Errorf("%s: the host name %q may not be claimed in this cluster, only: %s; ask whoever manages the tenant for it", path, host, allowed)
}
