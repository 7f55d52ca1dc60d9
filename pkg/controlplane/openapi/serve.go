package openapi

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/munnerz/goautoneg"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/handler3"
)

const mediaTypeJSON = "application/json"

// mediaType is one form of a document.
type mediaType struct {
	// subtype is what clients ask for, below application.
	subtype string
	// sent is what they are told.
	sent  string
	proto bool
}

// mediaTypesV2 has the old name of the type, too, which is no correct one.
func mediaTypesV2() []mediaType {
	return []mediaType{
		{"json", mediaTypeJSON, false},
		{"com.github.proto-openapi.spec.v2@v1.0+protobuf", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", true},
		{"com.github.proto-openapi.spec.v2.v1.0+protobuf", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", true},
	}
}

func mediaTypesV3() []mediaType {
	return []mediaType{
		{"json", mediaTypeJSON, false},
		{"com.github.proto-openapi.spec.v3.v1.0+protobuf", "application/com.github.proto-openapi.spec.v3.v1.0+protobuf", true},
		{"com.github.proto-openapi.spec.v3@v1.0+protobuf", "application/com.github.proto-openapi.spec.v3.v1.0+protobuf", true},
	}
}

func protoV2(json []byte) ([]byte, error) { return handler.ToProtoBinary(json) }
func protoV3(json []byte) ([]byte, error) { return handler3.ToV3ProtoBinary(json) }

// accepted returns the first of types that the client takes, by its order of
// preference.
func accepted(r *http.Request, types []mediaType) (mediaType, bool) {
	accept := r.Header.Get("Accept")
	if accept == "" {
		accept = "*/*"
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		for _, t := range types {
			if (clause.Type == "application" || clause.Type == "*") && (clause.SubType == t.subtype || clause.SubType == "*") {
				return t, true
			}
		}
	}
	return mediaType{}, false
}

// serve answers a request for a document, without building it where the client
// has it already.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, d document, types []mediaType) {
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	chosen, ok := accepted(r, types)
	if !ok {
		w.WriteHeader(http.StatusNotAcceptable)
		return
	}
	w.Header().Set("Content-Type", chosen.sent)
	if hasAlready(r, d.etag) {
		respond(w, r, nil, d.etag)
		return
	}
	content, err := s.content(r.Context(), d, chosen.proto)
	if err != nil {
		w.Header().Del("Cache-Control")
		w.Header().Del("Expires")
		unavailable(w, r, err)
		return
	}
	if takesGzip(r) {
		w.Header().Set("Content-Encoding", "gzip")
		respond(w, r, content.compressed, content.etag)
		return
	}
	plain, err := decompress(content.compressed)
	if err != nil {
		unavailable(w, r, err)
		return
	}
	respond(w, r, plain, content.etag)
}

// hasAlready tells whether respond will say that nothing has changed.
func hasAlready(r *http.Request, etag string) bool {
	for _, known := range strings.Split(r.Header.Get("If-None-Match"), ",") {
		if known = strings.TrimPrefix(strings.TrimSpace(known), "W/"); known == strconv.Quote(etag) {
			return true
		}
	}
	return false
}

func respond(w http.ResponseWriter, r *http.Request, content []byte, etag string) {
	w.Header().Set("Etag", strconv.Quote(etag))
	// No time: the ETag says all.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// takesGzip does not look at weights: nobody prefers the longer form.
func takesGzip(r *http.Request) bool {
	for _, encoding := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		name, weight, _ := strings.Cut(strings.TrimSpace(encoding), ";")
		if name == "gzip" && strings.ReplaceAll(weight, " ", "") != "q=0" {
			return r.Header.Get("Range") == ""
		}
	}
	return false
}

func compress(content []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return bytes.Clone(out.Bytes()), nil
}

func decompress(compressed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, fmt.Errorf("decompressing: %w", err)
	}
	return io.ReadAll(r)
}
