package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Builder makes images.
type Builder struct {
	// Checkout is the root of the repository.
	Checkout string
	// Version is the tag of Sublet's own image.
	Version string
	// Say is told what takes long; nil is fine.
	Say func(format string, args ...any)
}

// Archive is an image that can be imported, maybe with some that are made of it.
type Archive struct {
	// Reference is the name that pods use, of the first.
	Reference string
	Path      string
	// Key changes when the content does.
	Key string
}

// recipe tells how one archive is made.
type recipe struct {
	name string
	// references are the names that pods use, the one to tell first.
	references []string
	// key is a digest of everything that goes into the image.
	key func() (string, error)
	// build writes the archive.
	build func(ctx context.Context, path string) error
}

const (
	// Pause is the image of pod sandboxes.
	Pause = "pause"
	// CoreDNS is the image of the cluster's DNS.
	CoreDNS = "coredns"
	// Agnhost is Kubernetes' own test image, with others that consist of the same.
	Agnhost = "agnhost"
	// Subletd is Sublet's own image.
	Subletd = "subletd"
	// MetricsServer is what kubectl top and autoscaling ask.
	MetricsServer = "metrics-server"
	// Conformance is the set of all images that Kubernetes' own tests use, as far as
	// they can run on the local host.
	Conformance = "conformance"
)

func (b Builder) recipes() []recipe {
	return append([]recipe{b.pause(), b.coredns(), b.subletd(), b.metricsServer()}, b.tests()...)
}

// Members returns the names of the images of a set; the name of an image is that
// of a set of its own.
func Members(name string) []string {
	if name != Conformance {
		if slices.Contains(Names(), name) {
			return []string{name}
		}
		return nil
	}
	var names []string
	for _, r := range (Builder{}).tests() {
		names = append(names, r.name)
	}
	return names
}

// Names lists the images, those that the host itself needs first.
func Names() []string {
	var names []string
	for _, r := range (Builder{}).recipes() {
		names = append(names, r.name)
	}
	return names
}

// Reference is the name under which pods use an image.
func (b Builder) Reference(name string) (string, error) {
	r, err := b.recipe(name)
	if err != nil {
		return "", err
	}
	return r.references[0], nil
}

func (b Builder) recipe(name string) (recipe, error) {
	recipes := b.recipes()
	index := slices.IndexFunc(recipes, func(r recipe) bool { return r.name == name })
	if index < 0 {
		return recipe{}, fmt.Errorf("there is no image %q to make; there are %s", name, strings.Join(Names(), ", "))
	}
	return recipes[index], nil
}

// Build returns the archive of an image, which it makes first unless it is there
// and fresh.
func (b Builder) Build(ctx context.Context, name string) (Archive, error) {
	r, err := b.recipe(name)
	if err != nil {
		return Archive{}, err
	}
	key, err := r.key()
	if err != nil {
		return Archive{}, fmt.Errorf("image %s: %w", name, err)
	}
	archive := Archive{Reference: r.references[0], Path: filepath.Join(b.dir(), name+".tar"), Key: key}
	if fresh(archive) {
		return archive, nil
	}
	b.say("making the image %s", r.references[0])
	if err := os.MkdirAll(b.dir(), 0o755); err != nil {
		return Archive{}, fmt.Errorf("image %s: %w", name, err)
	}
	// The key is written last and removed first: an interrupted build is none.
	if err := os.Remove(archive.keyPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Archive{}, fmt.Errorf("image %s: %w", name, err)
	}
	next := archive.Path + ".next"
	if err := r.build(ctx, next); err != nil {
		return Archive{}, errors.Join(fmt.Errorf("image %s: %w", name, err), os.RemoveAll(next))
	}
	if err := os.Rename(next, archive.Path); err != nil {
		return Archive{}, fmt.Errorf("image %s: %w", name, err)
	}
	if err := os.WriteFile(archive.keyPath(), []byte(key), 0o644); err != nil {
		return Archive{}, fmt.Errorf("image %s: %w", name, err)
	}
	return archive, nil
}

func (a Archive) keyPath() string { return a.Path + ".key" }

func fresh(a Archive) bool {
	if _, err := os.Stat(a.Path); err != nil {
		return false
	}
	key, err := os.ReadFile(a.keyPath())
	return err == nil && string(key) == a.Key
}

func (b Builder) dir() string { return filepath.Join(b.Checkout, ".cache/images") }

func (b Builder) say(format string, args ...any) {
	if b.Say != nil {
		b.Say(format, args...)
	}
}
