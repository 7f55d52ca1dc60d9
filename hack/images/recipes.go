package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"k8s.io/kubernetes/test/utils/image"
)

// layout is part of every key: it changes when the same sources are put together
// in another way.
const layout = "2"

func (b Builder) pause() recipe {
	return recipe{
		name:       Pause,
		references: []string{image.GetE2EImage(image.Pause)},
		key:        func() (string, error) { return b.sourceKey("hack/images/pause") },
		build: func(ctx context.Context, path string) error {
			return b.single(ctx, path, image.GetE2EImage(image.Pause), "./hack/images/pause", process{
				Entrypoint: []string{"/pause"},
				User:       "65535:65535",
			})
		},
	}
}

func (b Builder) coredns() recipe {
	// CoreDNS' version is in go.mod; here is only that it is ours.
	const reference = "registry.k8s.io/coredns/coredns:local"
	return recipe{
		name:       CoreDNS,
		references: []string{reference},
		key:        func() (string, error) { return b.sourceKey("hack/images/coredns", "go.mod", "go.sum") },
		build: func(ctx context.Context, path string) error {
			return b.single(ctx, path, reference, "./hack/images/coredns", process{
				Entrypoint: []string{"/coredns"},
				User:       "65532:65532",
			})
		},
	}
}

// metricsServerVersion is built outside of this module, whose versions of other
// modules it would raise.
const metricsServerVersion = "v0.9.0"

func (b Builder) metricsServer() recipe {
	const module = "sigs.k8s.io/metrics-server"
	reference := "registry.k8s.io/metrics-server/metrics-server:" + metricsServerVersion
	return recipe{
		name:       MetricsServer,
		references: []string{reference},
		key:        func() (string, error) { return b.keyOf(reference, runtime.Version()) },
		build: func(ctx context.Context, path string) error {
			b.say("building metrics-server %s (some minutes the first time)", metricsServerVersion)
			return b.inScratch(func(dir string) error {
				install := exec.CommandContext(ctx, "go", "install", "-ldflags", "-s -w", module+"/cmd/metrics-server@"+metricsServerVersion)
				install.Dir = os.TempDir()
				install.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=")
				if err := b.quietly(install); err != nil {
					return err
				}
				layer := filepath.Join(dir, "layer.tar")
				if err := writeLayer(layer, entry{name: "metrics-server", source: filepath.Join(dir, "metrics-server"), mode: 0o755}); err != nil {
					return err
				}
				run := process{Entrypoint: []string{"/metrics-server"}, User: "65532:65532"}
				return writeArchive(path, content{reference: reference, process: run, layers: []string{layer}})
			})
		},
	}
}

// single makes an image of one static Go binary, named after its package.
func (b Builder) single(ctx context.Context, path, reference, pkg string, run process) error {
	return b.inScratch(func(dir string) error {
		name := filepath.Base(pkg)
		binary, layer := filepath.Join(dir, name), filepath.Join(dir, "layer.tar")
		if err := b.goBuild(ctx, binary, pkg); err != nil {
			return err
		}
		if err := writeLayer(layer, entry{name: name, source: binary, mode: 0o755}); err != nil {
			return err
		}
		return writeArchive(path, content{reference: reference, process: run, layers: []string{layer}})
	})
}

// subletd is made from the repository's Dockerfile, by buildah, so that the
// Dockerfile is tried too.
func (b Builder) subletd() recipe {
	reference := "ghcr.io/sublet-dev/subletd:" + b.Version
	return recipe{
		name:       Subletd,
		references: []string{reference},
		key: func() (string, error) {
			key, err := b.fileKey("Dockerfile", "bin/subletd")
			if errors.Is(err, fs.ErrNotExist) {
				return "", errors.New("bin/subletd is not there: run make build")
			}
			return key + b.Version, err
		},
		build: func(ctx context.Context, path string) error {
			return b.inScratch(func(dir string) error { return b.buildah(ctx, dir, path, reference) })
		},
	}
}

func (b Builder) buildah(ctx context.Context, dir, path, reference string) error {
	store := []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}
	for _, args := range [][]string{
		{"bud", "--isolation", "chroot", "--timestamp", "0", "--tag", reference, b.Checkout},
		{"push", reference, "docker-archive:" + path + ":" + reference},
	} {
		command := exec.CommandContext(ctx, "buildah", append(store, args...)...)
		command.Dir = b.Checkout
		apart(command, true)
		if err := b.quietly(command); err != nil {
			return err
		}
	}
	return nil
}

// goBuild builds a static binary, with the same flags as everything else, so that
// nothing is compiled twice.
func (b Builder) goBuild(ctx context.Context, output, pkg string) error {
	command := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", output, pkg)
	command.Dir = b.Checkout
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	return b.quietly(command)
}

// quietly runs a command and shows what it said only if it failed.
func (b Builder) quietly(command *exec.Cmd) error {
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(command.Args, " "), err, out)
	}
	return nil
}

// inScratch calls do with a directory that is removed afterwards.
func (b Builder) inScratch(do func(dir string) error) error {
	dir, err := os.MkdirTemp(b.dir(), "scratch-")
	if err != nil {
		return fmt.Errorf("make a directory to work in: %w", err)
	}
	return errors.Join(do(dir), os.RemoveAll(dir))
}

// sourceKey is a key of the Go files of a package and of further files.
func (b Builder) sourceKey(pkg string, more ...string) (string, error) {
	files, err := filepath.Glob(filepath.Join(b.Checkout, pkg, "*.go"))
	if err != nil {
		return "", err
	}
	for i := range files {
		if files[i], err = filepath.Rel(b.Checkout, files[i]); err != nil {
			return "", err
		}
	}
	key, err := b.fileKey(append(files, more...)...)
	if err != nil {
		return "", err
	}
	return b.keyOf(key, runtime.Version())
}

func (b Builder) fileKey(files ...string) (string, error) {
	var digests []string
	for _, file := range files {
		digest, err := fileDigest(filepath.Join(b.Checkout, file))
		if err != nil {
			return "", err
		}
		digests = append(digests, file, digest)
	}
	return b.keyOf(digests...)
}

func (b Builder) keyOf(parts ...string) (string, error) {
	digest := sha256.New()
	for _, part := range append(parts, layout, runtime.GOARCH) {
		fmt.Fprintf(digest, "%d %s\n", len(part), part)
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}
