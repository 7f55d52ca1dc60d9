// Command skew builds the control plane of another Kubernetes release than the
// one in go.mod: kube-apiserver and kube-controller-manager, for tests of
// Sublet on older hosts. It builds them in a module of their own, as one module
// has one Kubernetes only.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
)

const kubernetes = "k8s.io/kubernetes"

// stampFile is written last: where it is, all is built.
const stampFile = "built"

func main() {
	version := flag.String("version", "", "release to build, such as v1.33.13")
	dir := flag.String("dir", "", "directory for the programs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *version, *dir, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "skew:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, version, dir string, stderr io.Writer) error {
	if !strings.HasPrefix(version, "v1.") || dir == "" {
		return errors.New("-version (such as v1.33.13) and -dir are needed")
	}
	if _, err := os.Stat(filepath.Join(dir, stampFile)); err == nil {
		return nil
	}
	fmt.Fprintf(stderr, "building the control plane of Kubernetes %s (the first time about fifteen minutes on 2 cores)\n", version)
	module := filepath.Join(dir, "module")
	if err := os.MkdirAll(module, 0o755); err != nil {
		return err
	}
	upstream, err := download(ctx, version, stderr)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(module, "go.mod"), []byte(moduleFile(version, upstream)), 0o644); err != nil {
		return err
	}
	build := command(ctx, module, stderr, "build", "-mod=mod", "-ldflags", "-s -w "+versionFlags(version), "-o", "..",
		kubernetes+"/cmd/kube-apiserver", kubernetes+"/cmd/kube-controller-manager")
	if err := build.Run(); err != nil {
		return fmt.Errorf("building Kubernetes %s: %w", version, err)
	}
	return os.WriteFile(filepath.Join(dir, stampFile), []byte(version+"\n"), 0o644)
}

// upstreamModule is what counts of Kubernetes' own go.mod.
type upstreamModule struct {
	Go      string
	Godebug []struct{ Key, Value string }
	Replace []struct {
		Old, New struct{ Path string }
	}
}

func download(ctx context.Context, version string, stderr io.Writer) (upstreamModule, error) {
	var upstream upstreamModule
	var place struct{ GoMod string }
	out, err := command(ctx, os.TempDir(), stderr, "mod", "download", "-json", kubernetes+"@"+version).Output()
	if err == nil {
		err = json.Unmarshal(out, &place)
	}
	if err != nil {
		return upstream, fmt.Errorf("downloading Kubernetes %s: %w", version, err)
	}
	out, err = command(ctx, os.TempDir(), stderr, "mod", "edit", "-json", place.GoMod).Output()
	if err == nil {
		err = json.Unmarshal(out, &upstream)
	}
	if err != nil {
		return upstream, fmt.Errorf("reading Kubernetes' go.mod: %w", err)
	}
	return upstream, nil
}

// moduleFile requires Kubernetes with its parts, which it has in its own
// repository, as they are published: v0.33.13 belongs to v1.33.13.
func moduleFile(version string, upstream upstreamModule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "module skew\n\ngo %s\n\n", upstream.Go)
	for _, setting := range upstream.Godebug {
		fmt.Fprintf(&b, "godebug %s=%s\n", setting.Key, setting.Value)
	}
	fmt.Fprintf(&b, "\nrequire %s %s\n\n", kubernetes, version)
	part := "v0." + strings.TrimPrefix(version, "v1.")
	for _, replace := range upstream.Replace {
		if strings.HasPrefix(replace.New.Path, "./staging/") {
			fmt.Fprintf(&b, "replace %s => %s %s\n", replace.Old.Path, replace.Old.Path, part)
		}
	}
	return b.String()
}

// versionFlags tell the programs their release, which only the linker can.
func versionFlags(version string) string {
	const path = "k8s.io/component-base/version"
	minor := strings.Split(version, ".")[1]
	return fmt.Sprintf("-X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=1 -X %[1]s.gitMinor=%[3]s -X %[1]s.gitTreeState=clean", path, version, minor)
}

// command is the go command in dir, which is outside of our module.
func command(ctx context.Context, dir string, stderr io.Writer, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Stderr = stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	return cmd
}
