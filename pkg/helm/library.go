package helm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/registry"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

const (
	// fetchTime is how long a download may take.
	fetchTime = time.Minute
	// A chart is small, an index less so.
	mostOfChart, mostOfIndex = 20 << 20, 64 << 20
	// kept is how many charts of repositories are remembered: their version is
	// named in full, so that they stay what they are.
	kept = 64
	// defaultKey of a ConfigMap.
	defaultKey = "chart.tgz"
)

// Library finds charts. Its methods may be called concurrently.
type Library struct {
	// ConfigMap reads a key of binaryData of a ConfigMap in the manager's
	// namespace, nil when there is none; Credentials username and password in a
	// Secret there.
	ConfigMap   func(ctx context.Context, name, key string) ([]byte, error)
	Credentials func(ctx context.Context, secret string) (username, password string, err error)
	// Directory holds the charts that are named by a path; none when empty.
	Directory string

	mu    sync.Mutex
	known map[string][]*loader.BufferedFile
	order []string
}

// NotFound is a chart that could not be fetched; it may be there later.
type NotFound struct{ err error }

func (n *NotFound) Error() string { return n.err.Error() }
func (n *NotFound) Unwrap() error { return n.err }

func notFound(format string, args ...any) error { return &NotFound{fmt.Errorf(format, args...)} }

// Render finds a chart and renders it. An error of type *NotFound is about the
// finding, any other about the chart.
func (l *Library) Render(ctx context.Context, spec *api.TemplateChart, values map[string]any, r Release) (Rendered, error) {
	files, err := l.find(ctx, spec)
	if err != nil {
		return Rendered{}, err
	}
	return render(files, values, r, spec.SkipCRDs)
}

func (l *Library) find(ctx context.Context, spec *api.TemplateChart) ([]*loader.BufferedFile, error) {
	switch {
	case len(spec.Archive) > 0:
		return unpack(spec.Archive, "spec.chart.archive")
	case spec.ConfigMap != nil:
		key := spec.ConfigMap.Key
		if key == "" {
			key = defaultKey
		}
		content, err := l.ConfigMap(ctx, spec.ConfigMap.Name, key)
		if err != nil {
			return nil, notFound("read the chart in ConfigMap %q: %w", spec.ConfigMap.Name, err)
		}
		if content == nil {
			return nil, notFound("ConfigMap %q in the manager's namespace has no key %q under binaryData: "+
				"make it with \"kubectl create configmap %s --from-file=%s=CHART.tgz\"", spec.ConfigMap.Name, key, spec.ConfigMap.Name, key)
		}
		return unpack(content, fmt.Sprintf("ConfigMap %q", spec.ConfigMap.Name))
	case spec.Path != "":
		return l.read(spec.Path)
	case spec.Repository != nil:
		return l.download(ctx, *spec.Repository)
	}
	return nil, errors.New("spec.chart says nowhere where the chart is: name an archive, a configMap, a path or a repository")
}

func unpack(content []byte, from string) ([]*loader.BufferedFile, error) {
	files, err := loader.LoadArchiveFiles(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("%s is no packaged chart, as \"helm package\" makes it: %w", from, err)
	}
	return files, nil
}

// read reads a chart in the folder of charts, and nothing outside of it.
func (l *Library) read(name string) ([]*loader.BufferedFile, error) {
	if l.Directory == "" {
		return nil, notFound("the chart is named by the path %q, and the manager has no folder of charts: give it one (manager.charts of the installation, --chart-directory)", name)
	}
	root, err := os.OpenRoot(l.Directory)
	if err != nil {
		return nil, notFound("open the manager's folder of charts: %w", err)
	}
	defer func() { _ = root.Close() }()
	name = filepath.Clean(name)
	info, err := root.Stat(name)
	if err != nil {
		return nil, notFound("find the chart in the manager's folder of charts: %w", err)
	}
	if !info.IsDir() {
		if info.Size() > mostOfChart {
			return nil, fmt.Errorf("the chart %q has %d bytes, more than the %d that a chart may have", name, info.Size(), mostOfChart)
		}
		content, err := root.ReadFile(name)
		if err != nil {
			return nil, notFound("read the chart: %w", err)
		}
		return unpack(content, fmt.Sprintf("the file %q", name))
	}
	var files []*loader.BufferedFile
	total := int64(0)
	folder, err := fs.Sub(root.FS(), filepath.ToSlash(name))
	if err != nil {
		return nil, notFound("read the chart: %w", err)
	}
	err = fs.WalkDir(folder, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if info, err := fs.Stat(folder, path); err != nil {
			return err
		} else if total += info.Size(); total > mostOfChart {
			return fmt.Errorf("it has more than %d bytes", mostOfChart)
		}
		content, err := fs.ReadFile(folder, path)
		files = append(files, &loader.BufferedFile{Name: path, Data: content})
		return err
	})
	if err != nil {
		return nil, notFound("read the chart %q: %w", name, err)
	}
	return files, nil
}

// download fetches a chart once.
func (l *Library) download(ctx context.Context, from api.ChartRepository) ([]*loader.BufferedFile, error) {
	key := fmt.Sprintf("%q", []string{from.URL, from.Name, from.Version, from.SecretName, string(from.CABundle)})
	l.mu.Lock()
	files := l.known[key]
	l.mu.Unlock()
	if files != nil {
		return files, nil
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	var username, password string
	if from.SecretName != "" {
		var err error
		if username, password, err = l.Credentials(ctx, from.SecretName); err != nil {
			return nil, notFound("read the credentials for %s in Secret %q: %w", from.URL, from.SecretName, err)
		}
	}
	transport, err := transportFor(from)
	if err != nil {
		return nil, err
	}
	defer transport.CloseIdleConnections()
	fetch := fromIndex
	if registry.IsOCI(from.URL) {
		fetch = fromRegistry
	}
	content, err := fetch(ctx, from, transport, username, password)
	if err != nil {
		return nil, notFound("fetch chart %q %s from %s: %w", from.Name, from.Version, from.URL, err)
	}
	if files, err = unpack(content, fmt.Sprintf("what %s has as chart %q %s", from.URL, from.Name, from.Version)); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = map[string][]*loader.BufferedFile{}
	}
	if l.known[key] == nil {
		if l.order = append(l.order, key); len(l.order) > kept {
			delete(l.known, l.order[0])
			l.order = l.order[1:]
		}
		l.known[key] = files
	}
	return files, nil
}

// transportFor believes the authorities that are named, or those that the machine
// does.
func transportFor(from api.ChartRepository) (*http.Transport, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second}
	if len(from.CABundle) == 0 {
		return transport, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(from.CABundle) {
		return nil, errors.New("spec.chart.repository.caBundle holds no certificate in PEM")
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return transport, nil
}

// index is what matters of a repository's index.yaml.
type index struct {
	Entries map[string][]struct {
		Version string   `json:"version"`
		URLs    []string `json:"urls"`
		Digest  string   `json:"digest"`
	} `json:"entries"`
}

// fromIndex fetches a chart of a repository that has an index.
func fromIndex(ctx context.Context, from api.ChartRepository, transport http.RoundTripper, username, password string) ([]byte, error) {
	base, err := url.Parse(strings.TrimSuffix(from.URL, "/") + "/")
	if err != nil {
		return nil, err
	}
	c := &http.Client{Transport: transport}
	get := func(at *url.URL, most int64) ([]byte, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
		if err != nil {
			return nil, err
		}
		// Nobody else is told the password.
		if username != "" && at.Host == base.Host && at.Scheme == base.Scheme {
			request.SetBasicAuth(username, password)
		}
		response, err := c.Do(request)
		if err != nil {
			return nil, err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s answers %s", at.Redacted(), response.Status)
		}
		content, err := io.ReadAll(io.LimitReader(response.Body, most+1))
		if err == nil && int64(len(content)) > most {
			err = fmt.Errorf("%s has more than %d bytes", at.Redacted(), most)
		}
		return content, err
	}
	content, err := get(base.JoinPath("index.yaml"), mostOfIndex)
	if err != nil {
		return nil, err
	}
	var listed index
	if err := yaml.Unmarshal(content, &listed); err != nil {
		return nil, fmt.Errorf("read its index.yaml: %w", err)
	}
	versions, ok := listed.Entries[from.Name]
	if !ok {
		return nil, errors.New("its index.yaml has no chart of that name")
	}
	for _, entry := range versions {
		if strings.TrimPrefix(entry.Version, "v") != strings.TrimPrefix(from.Version, "v") || len(entry.URLs) == 0 {
			continue
		}
		at, err := base.Parse(entry.URLs[0])
		if err != nil {
			return nil, err
		}
		if at.Scheme != "http" && at.Scheme != "https" {
			return nil, fmt.Errorf("its index.yaml refers to %s: name that as the repository", at.Redacted())
		}
		content, err := get(at, mostOfChart)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(content)
		if want := strings.TrimPrefix(entry.Digest, "sha256:"); want != "" && want != hex.EncodeToString(sum[:]) {
			return nil, fmt.Errorf("%s is not what its index.yaml says: the digest differs", at.Redacted())
		}
		return content, nil
	}
	return nil, errors.New("its index.yaml has no such version of the chart")
}

// fromRegistry fetches a chart of an OCI registry.
func fromRegistry(ctx context.Context, from api.ChartRepository, transport http.RoundTripper, username, password string) ([]byte, error) {
	options := []registry.ClientOption{
		registry.ClientOptWriter(io.Discard),
		// It asks without a context.
		registry.ClientOptHTTPClient(&http.Client{Timeout: fetchTime, Transport: cancelled{ctx, transport}}),
	}
	if from.PlainHTTP {
		options = append(options, registry.ClientOptPlainHTTP())
	}
	if username != "" {
		options = append(options, registry.ClientOptBasicAuth(username, password))
	}
	c, err := registry.NewClient(options...)
	if err != nil {
		return nil, err
	}
	ref := strings.TrimSuffix(strings.TrimPrefix(from.URL, registry.OCIScheme+"://"), "/") + "/" + from.Name + ":" + from.Version
	pulled, err := c.Pull(ref)
	if err != nil {
		return nil, err
	}
	if int64(len(pulled.Chart.Data)) > mostOfChart {
		return nil, fmt.Errorf("it has more than %d bytes", mostOfChart)
	}
	return pulled.Chart.Data, nil
}

// cancelled ends requests with a context that they do not have.
type cancelled struct {
	ctx  context.Context
	next http.RoundTripper
}

func (c cancelled) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	return c.next.RoundTrip(request)
}
