//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// TestExamples does what the worked examples in docs/examples tell people to do,
// and compares what they show with what is printed.
func TestExamples(t *testing.T) {
	s := shared(t)
	pages, err := filepath.Glob(s.path("docs/examples/*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("find the examples: %v", err)
	}
	for _, page := range pages {
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			content, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			example, err := parseExample(string(content))
			if err != nil {
				t.Fatalf("%s: %v", page, err)
			}
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
				defer cancel()
				// Templates too, when a step before the one that deletes them fails.
				for _, name := range example.templates() {
					template := &api.Template{ObjectMeta: metav1.ObjectMeta{Name: name}}
					if err := client.IgnoreNotFound(s.objects.Delete(ctx, template)); err != nil {
						t.Errorf("delete template %s: %v", name, err)
					}
				}
				for _, name := range example.tenants {
					if r := s.run(t, ctx, nil, "delete", name, "--cascade", "--yes", "--ignore-not-found"); r.code != 0 {
						t.Errorf("delete tenant %s: %s%s", name, r.stdout, r.stderr)
					}
				}
			})
			dir, home := t.TempDir(), t.TempDir()
			for name, text := range example.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for _, step := range example.steps {
				if err := step.do(t.Context(), func(ctx context.Context) *exec.Cmd {
					cmd := s.command(ctx, "bash", "-c", step.command)
					cmd.Dir = dir
					cmd.Env = append(cmd.Env, "HOME="+home, "XDG_STATE_HOME="+home, "XDG_RUNTIME_DIR="+home,
						"PATH="+s.path("bin")+":"+s.path(".cache/bin")+":"+os.Getenv("PATH"))
					return cmd
				}); err != nil {
					t.Fatalf("%s: $ %s\n%v", filepath.Base(page), step.command, err)
				}
			}
		})
	}
}

// example is a page: the files that it shows, by the name in their first line, and
// what it has people type.
type example struct {
	files map[string]string
	steps []step
	// tenants are those at the top of what the page makes.
	tenants []string
}

// step is a command and what the page says that it prints, in which … is anything.
type step struct {
	command string
	want    []string
}

var (
	fence    = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")
	fileName = regexp.MustCompile(`\A# ([a-z-]+\.yaml)\n`)
	topOnly  = regexp.MustCompile(`<!-- tenants: ([a-z -]+) -->`)
)

func parseExample(page string) (*example, error) {
	e := &example{files: map[string]string{}}
	if match := topOnly.FindStringSubmatch(page); match != nil {
		e.tenants = strings.Fields(match[1])
	}
	for _, block := range fence.FindAllStringSubmatch(page, -1) {
		switch block[1] {
		case "yaml":
			name := fileName.FindStringSubmatch(block[2])
			if name == nil {
				return nil, fmt.Errorf("a block of YAML begins with no name of a file:\n%s", block[2])
			}
			e.files[name[1]] = block[2]
		case "console":
			for _, line := range strings.Split(strings.TrimSuffix(block[2], "\n"), "\n") {
				if command, ok := strings.CutPrefix(line, "$ "); ok {
					e.steps = append(e.steps, step{command: command})
					continue
				}
				if len(e.steps) == 0 {
					return nil, fmt.Errorf("what is printed before any command: %q", line)
				}
				last := &e.steps[len(e.steps)-1]
				if strings.HasSuffix(last.command, `\`) {
					last.command += "\n" + line
					continue
				}
				last.want = append(last.want, line)
			}
		default:
			return nil, fmt.Errorf("a block of kind %q: it is either yaml or console", block[1])
		}
	}
	if len(e.steps) == 0 || len(e.tenants) == 0 {
		return nil, fmt.Errorf("%d commands, %d tenants to delete at the end (<!-- tenants: NAME ... -->)", len(e.steps), len(e.tenants))
	}
	return e, nil
}

// templates are those that the files make.
func (e *example) templates() []string {
	var names []string
	for _, content := range e.files {
		for _, document := range strings.Split(content, "\n---\n") {
			var object metav1.PartialObjectMetadata
			if err := yaml.Unmarshal([]byte(document), &object); err == nil && object.Kind == "Template" {
				names = append(names, object.Name)
			}
		}
	}
	return names
}

// onlyReads are commands that may be run again until they print what they should:
// what a page does takes effect within seconds, not at once.
var onlyReads = regexp.MustCompile(`\b(kubectl( --?[a-z-]+[ =]\S+)* (get|describe|auth can-i)|sublet (tree|list|describe|members list|templates|quota|can-i))\b`)

// failure begins what a command says of why it fails.
var failure = regexp.MustCompile(`(?m)^(error: |Error from server)`)

// do runs the step. A command fails if the page shows an error as its first line,
// and only then.
func (s *step) do(ctx context.Context, command func(context.Context) *exec.Cmd) error {
	deadline := time.Now().Add(30 * time.Second)
	fails := len(s.want) > 0 && (failure.MatchString(s.want[0]))
	for {
		limited, cancel := context.WithTimeout(ctx, 3*time.Minute)
		var out, progress strings.Builder
		cmd := command(limited)
		cmd.Stdout, cmd.Stderr = &out, &progress
		err := cmd.Run()
		cancel()
		// What goes to the terminal only is progress, and why something failed.
		if i := failure.FindStringIndex(progress.String()); i != nil {
			out.WriteString(progress.String()[i[0]:])
		}
		problem := matches(s.want, out.String())
		if problem == nil && fails != (err != nil) {
			problem = fmt.Errorf("it ended with %v", err)
		}
		if problem == nil {
			return nil
		}
		if !onlyReads.MatchString(s.command) || time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%w (%v); all of it:\n%s%s", problem, err, out.String(), progress.String())
		}
		time.Sleep(300 * time.Millisecond)
	}
}

// matches says whether these lines were printed, in this order and with nothing
// between; the amount of space between words counts for nothing.
func matches(want []string, printed string) error {
	var lines []string
	for line := range strings.Lines(printed) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	var wanted []string
	for _, line := range want {
		if strings.TrimSpace(line) != "" {
			wanted = append(wanted, line)
		}
	}
	for i, line := range wanted {
		pattern := regexp.QuoteMeta(strings.Join(strings.Fields(line), " "))
		pattern = `\A` + strings.ReplaceAll(pattern, "…", ".*") + `\z`
		if i >= len(lines) || !regexp.MustCompile(pattern).MatchString(strings.Join(strings.Fields(lines[i]), " ")) {
			return fmt.Errorf("not printed as line %d: %q", i+1, line)
		}
	}
	if len(lines) > len(wanted) && len(wanted) > 0 {
		return fmt.Errorf("printed beside: %q", lines[len(wanted)])
	}
	return nil
}

// TestExampleParsing: the pages mean what people see.
func TestExampleParsing(t *testing.T) {
	e, err := parseExample("<!-- tenants: acme -->\n```yaml\n# a.yaml\nx: 1\n```\ntext\n```console\n$ one\nout … put\n$ two \\\n    three\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	if e.files["a.yaml"] != "# a.yaml\nx: 1\n" || len(e.steps) != 2 || e.steps[1].command != "two \\\n    three" || len(e.steps[0].want) != 1 {
		t.Errorf("got %+v", e)
	}
	e.files["b.yaml"] = "# b.yaml\nkind: Template\nmetadata: {name: one}\n---\nkind: Tenant\nmetadata: {name: two}\n---\nkind: Template\nmetadata: {name: three}\n"
	if got := e.templates(); !slices.Equal(got, []string{"one", "three"}) {
		t.Errorf("the templates are %q", got)
	}
	for printed, ok := range map[string]bool{"out  of put\n": true, "out of putt\n": false, "": false, "out x put\nmore\n": false} {
		if err := matches(e.steps[0].want, printed); (err == nil) != ok {
			t.Errorf("%q: %v", printed, err)
		}
	}
}
