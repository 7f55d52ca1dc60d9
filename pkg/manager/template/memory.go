package template

import (
	"sync"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/template"
)

// memory is what was last written, by tenant. An object that is still as it was
// written need not be sent again.
type memory struct {
	mu      sync.Mutex
	tenants map[string]map[api.TemplateObject]written
}

type written struct {
	// template made the object. Another one that makes it too does not know it.
	template string
	// intent is the hash of what was sent.
	intent string
	// version is the resource version that came back.
	version string
}

func (m *memory) get(tenant string, id api.TemplateObject) (written, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, ok := m.tenants[tenant][id]
	return w, ok
}

func (m *memory) set(tenant string, id api.TemplateObject, w written) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tenants == nil {
		m.tenants = map[string]map[api.TemplateObject]written{}
	}
	if m.tenants[tenant] == nil {
		m.tenants[tenant] = map[api.TemplateObject]written{}
	}
	m.tenants[tenant][id] = w
}

func (m *memory) drop(tenant string, id api.TemplateObject) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tenants[tenant], id)
}

func (m *memory) forget(tenant string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tenants, tenant)
}

// inputs are the hashes of what people wanted of each tenant when it was last
// looked at.
type inputs struct {
	mu      sync.Mutex
	tenants map[string]string
}

// changed says whether something else is wanted than the last time.
func (i *inputs) changed(tenant string, input []any) bool {
	// What cannot be hashed counts as a change; nothing of it cannot.
	hash, err := template.Revision(input...)
	i.mu.Lock()
	defer i.mu.Unlock()
	if before, known := i.tenants[tenant]; known && before == hash && err == nil {
		return false
	}
	if i.tenants == nil {
		i.tenants = map[string]string{}
	}
	i.tenants[tenant] = hash
	return true
}

func (i *inputs) forget(tenant string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.tenants, tenant)
}
