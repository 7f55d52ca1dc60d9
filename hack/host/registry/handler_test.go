package registry

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// fake is a store of one image.
type fake struct {
	name, digest string
	blobs        map[string]string
}

func (f fake) find(_ context.Context, name string) (blob, error) {
	if name != f.name {
		return blob{}, errMissing
	}
	return blob{digest: f.digest, mediaType: "application/vnd.example.index", size: int64(len(f.blobs[f.digest]))}, nil
}

func (f fake) stat(_ context.Context, digest string) (blob, error) {
	content, known := f.blobs[digest]
	if !known {
		return blob{}, errMissing
	}
	return blob{digest: digest, size: int64(len(content))}, nil
}

func (f fake) copy(_ context.Context, to io.Writer, digest string) error {
	content, known := f.blobs[digest]
	if !known {
		return errMissing
	}
	_, err := io.WriteString(to, content)
	return err
}

func TestPull(t *testing.T) {
	server := httptest.NewServer(newHandler(fake{
		name:   "registry.example/team/app:1",
		digest: "sha256:aa",
		blobs: map[string]string{
			"sha256:aa": `{"mediaType": "application/vnd.example.index"}`,
			"sha256:bb": `{"schemaVersion": 2}`,
			"sha256:cc": "a layer",
		},
	}))
	defer server.Close()
	const oci = "application/vnd.oci.image.manifest.v1+json"
	cases := map[string]struct {
		method, path       string
		user, password     string
		status             int
		body, kind, digest string
	}{
		"is there a registry":        {path: "/v2/", status: 200},
		"an image by its tag":        {path: "/v2/team/app/manifests/1?ns=registry.example", status: 200, body: `{"mediaType": "application/vnd.example.index"}`, kind: "application/vnd.example.index", digest: "sha256:aa"},
		"what its tag stands for":    {method: http.MethodHead, path: "/v2/team/app/manifests/1?ns=registry.example", status: 200, kind: "application/vnd.example.index", digest: "sha256:aa"},
		"an index by its digest":     {path: "/v2/team/app/manifests/sha256:aa?ns=registry.example", status: 200, body: `{"mediaType": "application/vnd.example.index"}`, kind: "application/vnd.example.index", digest: "sha256:aa"},
		"a manifest without type":    {path: "/v2/team/app/manifests/sha256:bb?ns=registry.example", status: 200, body: `{"schemaVersion": 2}`, kind: oci, digest: "sha256:bb"},
		"a layer":                    {path: "/v2/team/app/blobs/sha256:cc?ns=registry.example", status: 200, body: "a layer", kind: "application/octet-stream", digest: "sha256:cc"},
		"another tag":                {path: "/v2/team/app/manifests/2?ns=registry.example", status: 404},
		"the same of another origin": {path: "/v2/team/app/manifests/1?ns=elsewhere.example", status: 404},
		"a layer that is not there":  {path: "/v2/team/app/blobs/sha256:dd?ns=registry.example", status: 404},
		"a layer by a name":          {path: "/v2/team/app/blobs/1?ns=registry.example", status: 404},
		"something else":             {path: "/v2/_catalog", status: 404},
		"who asks?":                  {path: "/v2/registry.example/team/app/manifests/1?ns=private.example", status: 401},
		"a wrong password":           {path: "/v2/registry.example/team/app/manifests/1?ns=private.example", user: "user", password: "guess", status: 401},
		"the right one":              {path: "/v2/registry.example/team/app/manifests/1?ns=private.example", user: "user", password: "password", status: 200, body: `{"mediaType": "application/vnd.example.index"}`, digest: "sha256:aa"},
		"a push":                     {method: http.MethodPut, path: "/v2/team/app/manifests/1?ns=registry.example", status: 405},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			method := test.method
			if method == "" {
				method = http.MethodGet
			}
			request, err := http.NewRequestWithContext(t.Context(), method, server.URL+test.path, strings.NewReader(""))
			if err != nil {
				t.Fatal(err)
			}
			if test.user != "" {
				request.SetBasicAuth(test.user, test.password)
			}
			response, err := server.Client().Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != test.status {
				t.Fatalf("status %d, want %d: %s", response.StatusCode, test.status, body)
			}
			if challenge := response.Header.Get("WWW-Authenticate"); (challenge != "") != (test.status == http.StatusUnauthorized) {
				t.Errorf("the challenge is %q", challenge)
			}
			if test.status != http.StatusOK {
				if !strings.Contains(string(body), `"errors"`) {
					t.Errorf("the refusal does not say why: %s", body)
				}
				return
			}
			if string(body) != test.body {
				t.Errorf("body %q, want %q", body, test.body)
			}
			if got := response.Header.Get("Docker-Content-Digest"); got != test.digest {
				t.Errorf("digest %q, want %q", got, test.digest)
			}
			if got := response.Header.Get("Content-Type"); test.kind != "" && got != test.kind {
				t.Errorf("type %q, want %q", got, test.kind)
			}
		})
	}
}
