package report

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMisses(t *testing.T) {
	cases := map[string]struct {
		name            string
		value           float64
		misses, reaches bool
	}{
		"a time below its aim":         {"create_usable_s", 2, false, true},
		"a time between":               {"create_usable_s", 4, false, false},
		"a time above its must":        {"create_usable_s", 6, true, false},
		"a rate above its aim":         {"api_rate_ratio", 1.1, false, true},
		"a rate between":               {"api_rate_ratio", 0.95, false, false},
		"a rate below its must":        {"api_rate_ratio", 0.5, true, false},
		"fewer tenants than must be":   {"density_tenants", 40, true, false},
		"more tenants than must be":    {"density_tenants", 120, false, false},
		"a metric that nobody judges":  {"boot_again_s", 100, false, false},
		"exactly what must be is held": {"create_usable_s", 5, false, false},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			r := New(test.name, "test", []float64{test.value}, nil)
			if r.Misses() != test.misses || r.Reaches() != test.reaches {
				t.Errorf("misses %v, reaches %v; want %v, %v", r.Misses(), r.Reaches(), test.misses, test.reaches)
			}
		})
	}
}

func TestMeasure(t *testing.T) {
	m := Measure([]float64{5, 1, 3, 2})
	want := Measured{Value: 2.5, Spread: Spread{Min: 1, Max: 5}, Samples: []float64{5, 1, 3, 2}}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
}

func TestTable(t *testing.T) {
	good, bad := New("create_usable_s", "test", []float64{2}, nil), New("delete_s", "test", []float64{9}, nil)
	good.Host = Baseline([]float64{0.25})
	var out strings.Builder
	if err := Table(&out, []Result{good, bad}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2.00 s (aim)", "0.25", "9.00 s MISSED", "1 of 2 musts are held; missed: delete_s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}

func TestMerge(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "results.json")
	names := []string{"create_usable_s", "delete_s", "boot_first_s"}
	write := func(name, time string, value float64) {
		t.Helper()
		r := New(name, "test", []float64{value}, nil)
		r.Time = time
		if err := r.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	merged := func() map[string]float64 {
		t.Helper()
		results, err := Merge(file, dir, names)
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for name, r := range results {
			values[name] = r.Value
		}
		return values
	}
	write("create_usable_s", "2026-01-02T00:00:00Z", 1)
	write("delete_s", "2026-01-02T00:00:00Z", 2)
	if diff := cmp.Diff(map[string]float64{"create_usable_s": 1, "delete_s": 2}, merged()); diff != "" {
		t.Error(diff)
	}
	// A later run replaces what it measured, and what is gone or older stays.
	if err := os.Remove(filepath.Join(dir, "create_usable_s.json")); err != nil {
		t.Fatal(err)
	}
	write("delete_s", "2026-01-03T00:00:00Z", 3)
	write("boot_first_s", "2026-01-03T00:00:00Z", 4)
	want := map[string]float64{"create_usable_s": 1, "delete_s": 3, "boot_first_s": 4}
	if diff := cmp.Diff(want, merged()); diff != "" {
		t.Error(diff)
	}
	write("delete_s", "2026-01-01T00:00:00Z", 5)
	if diff := cmp.Diff(want, merged()); diff != "" {
		t.Errorf("an older result replaced a newer one: %s", diff)
	}
}

func TestReadRefusesAnotherMetric(t *testing.T) {
	dir := t.TempDir()
	if err := New("delete_s", "test", []float64{1}, nil).Write(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "delete_s.json"), filepath.Join(dir, "boot_first_s.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, "boot_first_s"); err == nil {
		t.Error("want an error")
	}
}

// TestBriefly holds that details lose many samples, and nothing else.
func TestBriefly(t *testing.T) {
	many := make([]any, fewSamples+1)
	details := map[string]any{"points": []any{map[string]any{"cpu": 1.0, "create": map[string]any{"value": 2.0, "samples": many}}}, "samples": []any{3.0}}
	want := map[string]any{"points": []any{map[string]any{"cpu": 1.0, "create": map[string]any{"value": 2.0}}}, "samples": []any{3.0}}
	if got := briefly(details); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
