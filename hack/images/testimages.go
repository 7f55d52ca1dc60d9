package images

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"k8s.io/kubernetes/test/utils/image"
)

const (
	testImages     = "k8s.io/kubernetes/test/images/"
	agnhostPackage = testImages + "agnhost"
	osRelease      = "hack/images/os-release"
	searchPath     = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// tests are the images of Kubernetes' own tests, named as k8s.io/kubernetes/test/utils/image
// names them and put together as test/images there does it, of Debian's packages
// in place of Alpine's, which cannot be had from Debian's mirrors.
func (b Builder) tests() []recipe {
	recipes := []recipe{b.agnhost()}
	for _, t := range testImagesOverBusybox() {
		recipes = append(recipes, b.overBusybox(t))
	}
	return recipes
}

// testImage is busybox with more laid over it.
type testImage struct {
	name string
	// ids are the names under which tests know it.
	ids []image.ImageID
	run process
	// packages of Debian.
	packages []string
	// files of this repository.
	files []entry
	// programs are static Go binaries.
	programs []program
}

type program struct {
	// path of the binary in the image, pkg that it is built of.
	path, pkg string
	mode      int64
}

func testImagesOverBusybox() []testImage {
	return []testImage{
		{name: "busybox", ids: []image.ImageID{image.BusyBox}, run: process{Cmd: []string{"sh"}}},
		{
			name: "nginx",
			// Tests replace the one by the other.
			ids: []image.ImageID{image.Nginx, image.NginxNew},
			run: process{
				Cmd:          []string{"nginx", "-e", "/dev/stderr", "-g", "daemon off;"},
				ExposedPorts: map[string]struct{}{"80/tcp": {}},
				StopSignal:   "SIGQUIT",
			},
			packages: []string{"nginx-light"},
			files:    []entry{{name: "etc/nginx/nginx.conf", source: "hack/images/nginx.conf", mode: 0o644}},
		},
		{
			name:     "nonewprivs",
			ids:      []image.ImageID{image.Nonewprivs},
			run:      process{Cmd: []string{"nnp"}},
			programs: []program{{path: "usr/local/bin/nnp", pkg: testImages + "nonewprivs", mode: 0o6755}},
		},
		{name: "nonroot", ids: []image.ImageID{image.NonRoot}, run: process{Cmd: []string{"sh"}, User: "1234"}},
		{
			name: "resource-consumer",
			ids:  []image.ImageID{image.ResourceConsumer},
			run: process{
				Entrypoint:   []string{"/consumer"},
				ExposedPorts: map[string]struct{}{"8080/tcp": {}},
			},
			packages: []string{"stress"},
			programs: []program{
				{path: "consumer", pkg: testImages + "resource-consumer", mode: 0o755},
				{path: "consume-cpu/consume-cpu", pkg: "./hack/images/consume-cpu", mode: 0o755},
			},
		},
		{
			name:     "sample-apiserver",
			ids:      []image.ImageID{image.APIServer},
			run:      process{Entrypoint: []string{"/sample-apiserver"}},
			programs: []program{{path: "sample-apiserver", pkg: "k8s.io/sample-apiserver", mode: 0o755}},
		},
		{
			name:     "etcd",
			ids:      []image.ImageID{image.Etcd},
			programs: []program{{path: "usr/local/bin/etcd", pkg: "./hack/images/etcd", mode: 0o755}},
		},
	}
}

// systems are the root file systems that an image consists of.
func (t testImage) systems() []rootfs {
	all := []rootfs{busybox()}
	for _, name := range t.packages {
		all = append(all, rootfs{name: name, suite: busybox().suite, packages: []string{name}})
	}
	return all
}

func (b Builder) overBusybox(t testImage) recipe {
	t.run.Env = []string{searchPath}
	return recipe{
		name:       t.name,
		references: references(t.ids...),
		key:        func() (string, error) { return b.testImageKey(t) },
		build: func(ctx context.Context, path string) error {
			return b.inScratch(func(dir string) error { return b.buildTestImage(ctx, t, dir, path) })
		},
	}
}

func references(ids ...image.ImageID) []string {
	var all []string
	for _, id := range ids {
		all = append(all, image.GetE2EImage(id))
	}
	return all
}

func (b Builder) testImageKey(t testImage) (string, error) {
	parts := append(references(t.ids...), fmt.Sprintf("%+v %+v", t, t.systems()))
	var sources []string
	for _, file := range t.files {
		sources = append(sources, file.source)
	}
	files, err := b.fileKey(sources...)
	if err != nil {
		return "", err
	}
	parts = append(parts, files)
	for _, p := range t.programs {
		key, err := b.programKey(p.pkg)
		if err != nil {
			return "", err
		}
		parts = append(parts, key)
	}
	return b.keyOf(parts...)
}

// programKey is a key of what a binary is made of: the versions in go.mod, and the
// files of its package if that is in this repository.
func (b Builder) programKey(pkg string) (string, error) {
	if strings.HasPrefix(pkg, "./") {
		return b.sourceKey(pkg, "go.mod")
	}
	versions, err := b.fileKey("go.mod")
	if err != nil {
		return "", err
	}
	return b.keyOf(versions, runtime.Version())
}

func (b Builder) buildTestImage(ctx context.Context, t testImage, dir, path string) error {
	var layers []string
	for _, system := range t.systems() {
		layer, err := b.layer(ctx, system)
		if err != nil {
			return err
		}
		layers = append(layers, layer)
	}
	var entries []entry
	for _, file := range t.files {
		file.source = filepath.Join(b.Checkout, file.source)
		entries = append(entries, file)
	}
	for _, p := range t.programs {
		binary := filepath.Join(dir, filepath.Base(p.path))
		if err := b.goBuild(ctx, binary, p.pkg); err != nil {
			return err
		}
		entries = append(entries, entry{name: p.path, source: binary, mode: p.mode})
	}
	if len(entries) > 0 {
		layer := filepath.Join(dir, "layer.tar")
		if err := writeLayer(layer, entries...); err != nil {
			return err
		}
		layers = append(layers, layer)
	}
	var contents []content
	for _, reference := range references(t.ids...) {
		contents = append(contents, content{reference: reference, process: t.run, layers: layers})
	}
	return writeArchive(path, contents...)
}

// agnhost comes with the images that are made of it or of the same Debian: its
// previous version, which tests replace by the current one, two that serve a
// picture each, and the one for tests of DNS.
func (b Builder) agnhost() recipe {
	all := references(image.Agnhost, image.AgnhostPrev, image.GlibcDnsTesting, image.Kitten, image.Nautilus)
	return recipe{
		name:       Agnhost,
		references: all,
		key: func() (string, error) {
			programs, err := b.programKey("./hack/images/dnsserver")
			if err != nil {
				return "", err
			}
			release, err := b.fileKey(osRelease)
			if err != nil {
				return "", err
			}
			return b.keyOf(append(all, debian().key(), programs, release)...)
		},
		build: func(ctx context.Context, path string) error {
			return b.inScratch(func(dir string) error { return b.buildAgnhost(ctx, dir, path) })
		},
	}
}

func (b Builder) buildAgnhost(ctx context.Context, dir, path string) error {
	base, err := b.layer(ctx, debian())
	if err != nil {
		return err
	}
	list := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", agnhostPackage)
	list.Dir = b.Checkout
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("find the files of %s: %w", agnhostPackage, err)
	}
	sources := strings.TrimSpace(string(out))
	layer, err := b.agnhostLayer(ctx, dir, sources)
	if err != nil {
		return err
	}
	run := process{
		Entrypoint: []string{"/agnhost"},
		Cmd:        []string{"pause"},
		Env:        []string{searchPath},
		ExposedPorts: map[string]struct{}{
			"80/tcp": {}, "5000/tcp": {}, "8080/tcp": {}, "8081/tcp": {}, "9376/tcp": {},
		},
	}
	serve := run
	serve.Cmd = []string{"test-webserver"}
	contents := []content{
		{reference: image.GetE2EImage(image.Agnhost), process: run, layers: []string{base, layer}},
		{reference: image.GetE2EImage(image.AgnhostPrev), process: run, layers: []string{base, layer}},
		{reference: image.GetE2EImage(image.GlibcDnsTesting), process: process{Cmd: []string{"bash"}, Env: run.Env}, layers: []string{base}},
	}
	for _, picture := range []struct {
		name string
		id   image.ImageID
	}{{"kitten", image.Kitten}, {"nautilus", image.Nautilus}} {
		html := filepath.Join(filepath.Dir(sources), picture.name, "html")
		top := filepath.Join(dir, picture.name+".tar")
		if err := writeLayer(top,
			entry{name: "data.json", source: filepath.Join(html, "data.json"), mode: 0o644},
			entry{name: picture.name + ".jpg", source: filepath.Join(html, picture.name+".jpg"), mode: 0o644},
			// The spec of image volumes knows upstream's image by the name of its system
			// in this file, which ours tells to say what it stands in for.
			entry{name: "etc/os-release", source: filepath.Join(b.Checkout, osRelease), mode: 0o644},
		); err != nil {
			return err
		}
		contents = append(contents, content{reference: image.GetE2EImage(picture.id), process: serve, layers: []string{base, layer, top}})
	}
	return writeArchive(path, contents...)
}

func (b Builder) agnhostLayer(ctx context.Context, dir, sources string) (string, error) {
	binary, server, layer := filepath.Join(dir, "agnhost"), filepath.Join(dir, "coredns"), filepath.Join(dir, "agnhost.tar")
	if err := b.goBuild(ctx, binary, agnhostPackage); err != nil {
		return "", err
	}
	if err := b.goBuild(ctx, server, "./hack/images/dnsserver"); err != nil {
		return "", err
	}
	return layer, writeLayer(layer,
		entry{name: "agnhost", source: binary, mode: 0o755},
		entry{name: "agnhost-2", link: "agnhost"},
		entry{name: "coredns", source: server, mode: 0o755},
		entry{name: "localhost.crt", source: filepath.Join(sources, "porter/localhost.crt"), mode: 0o644},
		entry{name: "localhost.key", source: filepath.Join(sources, "porter/localhost.key"), mode: 0o644},
		entry{name: "uploads/", mode: 0o755},
	)
}
