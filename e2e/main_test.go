//go:build linux

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

func TestMain(m *testing.M) {
	if os.Getenv(outsideVariable) != "" {
		os.Exit(serveOutside())
	}
	flag.Parse()
	if testing.Short() {
		fmt.Println("e2e needs a real node: left out with -short")
		return
	}
	// Tests wait more than they work.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("6"); err != nil {
			panic(err)
		}
	}
	s, err := setUp()
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "set up:", err)
	} else {
		code = m.Run()
	}
	if err := s.tearDown(); err != nil {
		fmt.Fprintln(os.Stderr, "tear down:", err)
		code = 1
	}
	os.Exit(code)
}

// suite is what all tests share: the host with Sublet on it.
type suite struct {
	root       string
	kubeconfig string
	// broughtUp tells that the local host was not there before.
	broughtUp bool
	// sandbox is the process of the local host in whose namespaces its node
	// lives; 0 with another cluster.
	sandbox int

	config  *rest.Config
	host    kubernetes.Interface
	dynamic dynamic.Interface
	objects client.Client

	// outer is held by the test that plays what is outside of the cluster.
	outer sync.Mutex

	mu      sync.Mutex
	tenants map[string]*sharedTenant
}

var setUp = sync.OnceValues(newSuite)

func newSuite() (*suite, error) {
	root, err := filepath.Abs("..")
	if err != nil {
		return nil, err
	}
	s := &suite{root: root, kubeconfig: os.Getenv("SUBLET_E2E_KUBECONFIG"), tenants: map[string]*sharedTenant{}}
	for _, program := range []string{"bin/sublet", ".cache/bin/kubectl", ".cache/bin/helm"} {
		if _, err := os.Stat(s.path(program)); err != nil {
			return s, fmt.Errorf("%w: run make build tools, or make e2e, which does that too", err)
		}
	}
	if s.kubeconfig == "" {
		if err := s.localHost(); err != nil {
			return s, err
		}
	}
	if s.config, err = clientcmd.BuildConfigFromFlags("", s.kubeconfig); err != nil {
		return s, err
	}
	s.config.QPS, s.config.Burst = 200, 400
	if s.host, err = kubernetes.NewForConfig(s.config); err != nil {
		return s, err
	}
	if s.dynamic, err = dynamic.NewForConfig(s.config); err != nil {
		return s, err
	}
	scheme := runtime.NewScheme()
	if err := api.AddToScheme(scheme); err != nil {
		return s, err
	}
	if s.objects, err = client.New(s.config, client.Options{Scheme: scheme}); err != nil {
		return s, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	// What only TestKinds uses: nobody changes an installation that others use.
	out, err := s.command(ctx, s.path("bin/sublet"), "install",
		"--set", "ingress.namespaces={"+ingressNamespace+"}",
		"--set", "customResources[0].group="+customGroup,
		"--set", "customResources[0].resources={"+customResource+"}",
	).CombinedOutput()
	fmt.Printf("sublet install:\n%s", out)
	if err != nil {
		return s, fmt.Errorf("sublet install: %w", err)
	}
	return s, nil
}

// localHost makes sure that the local host runs.
func (s *suite) localHost() error {
	if os.Getuid() != 0 {
		return errors.New("the local host needs root; to use another cluster, name its kubeconfig in SUBLET_E2E_KUBECONFIG")
	}
	s.kubeconfig = s.path(".host/kubeconfig")
	if _, err := os.Stat(s.path(".host")); errors.Is(err, os.ErrNotExist) {
		s.broughtUp = true
	}
	up := exec.Command(s.path(".cache/bin/host"), "up", "--nodes", "2")
	up.Dir = s.root
	up.Stdout, up.Stderr = os.Stdout, os.Stderr
	if err := up.Run(); err != nil {
		return fmt.Errorf("bring the local host up: %w", err)
	}
	content, err := os.ReadFile(s.path(".host/init.pid"))
	if err != nil {
		return fmt.Errorf("find the local host's process: %w", err)
	}
	s.sandbox, err = strconv.Atoi(strings.TrimSpace(string(content)))
	return err
}

func (s *suite) tearDown() error {
	if os.Getenv("SUBLET_E2E_KEEP") != "" {
		return nil
	}
	var errs []error
	for name := range s.tenants {
		if out, err := s.command(context.Background(), s.path("bin/sublet"), "delete", name, "--yes").CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("delete tenant %s: %w\n%s", name, err, out))
		}
	}
	if s.broughtUp {
		down := exec.Command(s.path(".cache/bin/host"), "down")
		down.Dir = s.root
		down.Stdout, down.Stderr = os.Stdout, os.Stderr
		errs = append(errs, down.Run())
	}
	return errors.Join(errs...)
}

func (s *suite) path(relative string) string { return filepath.Join(s.root, relative) }

// command prepares a program to run against the host.
func (s *suite) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.root
	cmd.Env = append(os.Environ(),
		"KUBECONFIG="+s.kubeconfig,
		"PATH="+s.path("bin")+":"+s.path(".cache/bin")+":"+os.Getenv("PATH"),
		"HELM_CACHE_HOME="+s.path(".cache/helm/cache"), "HELM_CONFIG_HOME="+s.path(".cache/helm/config"), "HELM_DATA_HOME="+s.path(".cache/helm/data"))
	return cmd
}

// shared returns the suite, and lets the test run beside others.
func shared(t *testing.T) *suite {
	t.Helper()
	s, err := setUp()
	if err != nil {
		t.Fatal(err)
	}
	t.Parallel()
	return s
}

// onLocalHost leaves a test out that plays with the node itself.
func (s *suite) onLocalHost(t *testing.T) {
	t.Helper()
	if s.sandbox == 0 {
		t.Skip("plays with the node itself, which only the local host lets it")
	}
}

type result struct {
	stdout, stderr string
	code           int
	took           time.Duration
}

// sublet runs the command line to its end.
func (s *suite) sublet(t *testing.T, args ...string) result {
	t.Helper()
	return s.subletWith(t, nil, args...)
}

func (s *suite) subletWith(t *testing.T, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	return s.run(t, ctx, env, args...)
}

func (s *suite) run(t *testing.T, ctx context.Context, env []string, args ...string) result {
	t.Helper()
	cmd := s.command(ctx, s.path("bin/sublet"), args...)
	cmd.Env = append(cmd.Env, env...)
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	r := result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode(), took: time.Since(start)}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("sublet %s: %v", strings.Join(args, " "), err)
	}
	return r
}

// mustSublet fails the test if the command fails.
func (s *suite) mustSublet(t *testing.T, args ...string) string {
	t.Helper()
	r := s.sublet(t, args...)
	if r.code != 0 {
		t.Fatalf("sublet %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}
