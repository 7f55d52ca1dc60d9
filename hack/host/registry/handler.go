package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/klog/v2"
)

// blob is a piece of an image: a manifest, a configuration or a layer.
type blob struct {
	digest string
	// mediaType is known of the manifest that an image's name stands for.
	mediaType string
	size      int64
}

// store is where images are.
type store interface {
	// find returns what the full name of an image stands for, or errMissing.
	find(ctx context.Context, name string) (blob, error)
	// stat returns the blob with a digest, or errMissing.
	stat(ctx context.Context, digest string) (blob, error)
	// copy writes the content of a blob.
	copy(ctx context.Context, to io.Writer, digest string) error
}

// One registry wants to know who asks, so that secrets for pulls can be tested:
// it has the images of all others, below their names.
const (
	privateRegistry = "private.example"
	privateUser     = "user"
	privatePassword = "password"
)

var errMissing = errors.New("the node does not have it")

// handler serves pulls from a store.
type handler struct {
	store store
	path  *regexp.Regexp
}

func newHandler(s store) *handler {
	return &handler{store: s, path: regexp.MustCompile(`^/v2/(.+)/(manifests|blobs)/([^/]+)$`)}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "images can only be pulled; host load imports them")
		return
	}
	if r.URL.Path == "/v2/" {
		return
	}
	match := h.path.FindStringSubmatch(r.URL.Path)
	if match == nil {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "this is no path of an image")
		return
	}
	repository, kind, reference := match[1], match[2], match[3]
	// Containerd says here which registry it would ask.
	registry := r.URL.Query().Get("ns")
	name := registry + "/" + repository + ":" + reference
	if registry == privateRegistry {
		if user, password, ok := r.BasicAuth(); !ok || user != privateUser || password != privatePassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="`+privateRegistry+`"`)
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "this registry wants a user and a password")
			return
		}
		name = repository + ":" + reference
	}
	found, err := h.find(r.Context(), kind, name, reference)
	if errors.Is(err, errMissing) {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", fmt.Sprintf("the node does not have %s: host load imports images", name))
		return
	}
	if err != nil {
		klog.FromContext(r.Context()).Error(err, "Cannot serve a part of an image", "image", name)
		refuse(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
		return
	}
	w.Header().Set("Content-Type", found.mediaType)
	w.Header().Set("Content-Length", strconv.FormatInt(found.size, 10))
	w.Header().Set("Docker-Content-Digest", found.digest)
	if r.Method == http.MethodHead {
		return
	}
	if err := h.store.copy(r.Context(), w, found.digest); err != nil {
		klog.FromContext(r.Context()).Error(err, "Cannot serve a part of an image", "image", name, "digest", found.digest)
		// The length that was announced is not reached, which the client must see.
		panic(http.ErrAbortHandler)
	}
}

// find returns what is asked for, by name or by digest.
func (h *handler) find(ctx context.Context, kind, name, reference string) (blob, error) {
	if !strings.HasPrefix(reference, "sha256:") {
		if kind == "blobs" {
			return blob{}, errMissing
		}
		return h.store.find(ctx, name)
	}
	found, err := h.store.stat(ctx, reference)
	if err != nil {
		return found, err
	}
	found.mediaType = "application/octet-stream"
	if kind == "manifests" {
		found.mediaType, err = h.mediaType(ctx, reference)
	}
	return found, err
}

// mediaType of a manifest is in itself.
func (h *handler) mediaType(ctx context.Context, digest string) (string, error) {
	var content bytes.Buffer
	if err := h.store.copy(ctx, &content, digest); err != nil {
		return "", err
	}
	manifest := struct {
		MediaType string `json:"mediaType"`
	}{MediaType: "application/vnd.oci.image.manifest.v1+json"}
	if err := json.Unmarshal(content.Bytes(), &manifest); err != nil {
		return "", fmt.Errorf("read the manifest %s: %w", digest, err)
	}
	return manifest.MediaType, nil
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// An error is that of a client that went away.
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}
