package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

const (
	hostNameLength = 63
	hashLength     = 10
)

// HostName is the name, on the host, of the virtual object of any kind with
// this namespace and name: NAME-NAMESPACE-HASH. It has at most 63 characters,
// begins with a letter and holds only a-z, 0-9 and '-', which is valid for
// every kind (RFC 1035 label). The hash is over namespace and name, so names
// that are cut or that differ only in characters replaced do not collide.
func HostName(virtualNamespace, virtualName string) string {
	sum := sha256.Sum256([]byte(virtualNamespace + "/" + virtualName))
	hash := hex.EncodeToString(sum[:])[:hashLength]

	var b strings.Builder
	for _, r := range virtualName + "-" + virtualNamespace {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			r = '-'
		}
		b.WriteRune(r)
	}
	prefix := strings.Trim(b.String(), "-")
	if prefix == "" || prefix[0] < 'a' || prefix[0] > 'z' {
		prefix = "x-" + prefix
	}
	if most := hostNameLength - hashLength - 1; len(prefix) > most {
		prefix = prefix[:most]
	}
	return strings.TrimRight(prefix, "-") + "-" + hash
}

// TokenSecretName is the host name of the Secret that holds the tokens of the
// virtual object with this namespace and name. No virtual Secret can get it,
// since no name holds a colon.
func TokenSecretName(virtualNamespace, virtualName string) string {
	return HostName(virtualNamespace, virtualName+":tokens")
}

// Names gives the virtual name behind a host name, if it is one of the
// tenant's. A nil Names knows nothing.
type Names func(hostName string) (types.NamespacedName, bool)

// Rewrite replaces, in a text that the host wrote, the names of the tenant's
// host objects by their virtual ones, and the host namespace where it stands
// before one.
func (t Tenant) Rewrite(text string, names Names) string {
	if names == nil {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		if !nameByte(text[i]) {
			b.WriteByte(text[i])
			i++
			continue
		}
		end := i
		for end < len(text) && nameByte(text[end]) {
			end++
		}
		word := text[i:end]
		i = end
		virtual, ok := names(word)
		if !ok {
			b.WriteString(word)
			continue
		}
		// NAMESPACE/NAME or "NAMESPACE"/"NAME": the namespace is written already.
		written := b.String()
		for _, form := range [][2]string{{t.HostNamespace + "/", virtual.Namespace + "/"}, {`"` + t.HostNamespace + `"/"`, `"` + virtual.Namespace + `"/"`}} {
			before, found := strings.CutSuffix(written, form[0])
			if found && (before == "" || !nameByte(before[len(before)-1])) {
				b.Reset()
				b.WriteString(before + form[1])
				break
			}
		}
		b.WriteString(virtual.Name)
	}
	return b.String()
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
}
