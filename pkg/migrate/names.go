package migrate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// maxTenantName is the longest name of a tenant; its schema says so.
	maxTenantName = 40
	// maxTemplateName is that of a template: it stands in labels.
	maxTemplateName = validation.DNS1123LabelMaxLength
	// hashLength is how much of a hash makes a name that had to be changed its
	// own again.
	hashLength = 6
)

// names gives each object a valid name that no other has. The same objects get
// the same names every time.
type names struct {
	valid func(string) bool
	taken map[string]bool
}

func newNames(valid func(string) bool) names { return names{valid: valid, taken: map[string]bool{}} }

func validTenantName(name string) bool {
	return len(name) <= maxTenantName && name != "" && name[0] >= 'a' && name[0] <= 'z' && len(validation.IsDNS1123Label(name)) == 0
}

func validTemplateName(name string) bool { return len(validation.IsDNS1123Label(name)) == 0 }

// give returns the wanted name where it is valid and free, else one that is made
// of it and of what the object is.
func (n names) give(kind, wanted string) string {
	name := wanted
	for round := 0; n.taken[name] || !n.valid(name); round++ {
		identity := kind + "/" + wanted
		if round > 0 {
			identity = fmt.Sprintf("%s/%d", identity, round)
		}
		sum := sha256.Sum256([]byte(identity))
		name = readable(wanted) + "-" + hex.EncodeToString(sum[:])[:hashLength]
	}
	n.taken[name] = true
	return name
}

// readable is what a valid name can keep of any other.
func readable(name string) string {
	name = regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-")
	name = strings.Trim(name, "-")
	if name == "" || name[0] < 'a' || name[0] > 'z' {
		name = strings.TrimSuffix("t-"+name, "-")
	}
	if longest := maxTenantName - hashLength - 1; len(name) > longest {
		name = strings.TrimRight(name[:longest], "-")
	}
	return name
}
