//go:build linux

package sandbox

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLimit(t *testing.T) {
	raise := func(id string) func(limit) error { return func(l limit) error { return l.raise(id) } }
	lower := func(id string) func(limit) error { return func(l limit) error { return l.lower(id) } }
	somebody := func(l limit) error { return l.write(l.file, 4000) }
	cases := map[string]struct {
		is    int
		steps []func(limit) error
		want  []int
		left  bool
	}{
		"one sandbox":                     {is: 128, steps: []func(limit) error{raise("a"), lower("a")}, want: []int{1000, 128}},
		"the last of two puts it back":    {is: 128, steps: []func(limit) error{raise("a"), raise("b"), lower("a"), lower("b")}, want: []int{1000, 1000, 1000, 128}},
		"started again after a crash":     {is: 128, steps: []func(limit) error{raise("a"), raise("a"), lower("a")}, want: []int{1000, 1000, 128}},
		"ended twice":                     {is: 128, steps: []func(limit) error{raise("a"), raise("b"), lower("a"), lower("a")}, want: []int{1000, 1000, 1000, 1000}, left: true},
		"high enough already":             {is: 2000, steps: []func(limit) error{raise("a"), lower("a")}, want: []int{2000, 2000}},
		"changed by somebody meanwhile":   {is: 128, steps: []func(limit) error{raise("a"), somebody, lower("a")}, want: []int{1000, 4000, 4000}},
		"ended without having been there": {is: 128, steps: []func(limit) error{lower("a")}, want: []int{128}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			l := limit{file: filepath.Join(t.TempDir(), "limit"), wanted: 1000, dir: filepath.Join(t.TempDir(), "sandboxes")}
			if err := l.write(l.file, test.is); err != nil {
				t.Fatal(err)
			}
			for i, step := range test.steps {
				if err := step(l); err != nil {
					t.Fatalf("step %d: %v", i+1, err)
				}
				if is, err := l.read(l.file); err != nil || is != test.want[i] {
					t.Errorf("after step %d it is %d, %v; want %d", i+1, is, err, test.want[i])
				}
			}
			if _, err := os.Stat(l.dir); (err == nil) != test.left {
				t.Errorf("%s: %v", l.dir, err)
			}
		})
	}
}
