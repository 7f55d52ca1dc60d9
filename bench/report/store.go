package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Read reads a result that Write has written. It is none, without an error, when
// there is no such file.
func Read(dir, name string) (*Result, error) {
	path := filepath.Join(dir, name+".json")
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &Result{}
	if err := json.Unmarshal(content, r); err != nil {
		return nil, fmt.Errorf("read the result %s: %w", path, err)
	}
	if r.Name != name {
		return nil, fmt.Errorf("%s is not the result of %s, but of %q: remove it", path, name, r.Name)
	}
	r.compare()
	return r, nil
}

// fewSamples are as many as a file that people keep has of one metric.
const fewSamples = 20

// brief leaves out samples where there are many: their own files have them.
func (r Result) brief() Result {
	leaveOut := func(m *Measured) *Measured {
		if m == nil || len(m.Samples) <= fewSamples {
			return m
		}
		short := *m
		short.Samples = nil
		return &short
	}
	r.Measured, r.Host, r.Separate = *leaveOut(&r.Measured), leaveOut(r.Host), leaveOut(r.Separate)
	r.Details = briefly(r.Details)
	return r
}

// briefly is brief for what was read of details.
func briefly(details any) any {
	switch d := details.(type) {
	case map[string]any:
		short := make(map[string]any, len(d))
		for key, value := range d {
			if samples, ok := value.([]any); !ok || key != "samples" || len(samples) <= fewSamples {
				short[key] = briefly(value)
			}
		}
		return short
	case []any:
		short := make([]any, 0, len(d))
		for _, value := range d {
			short = append(short, briefly(value))
		}
		return short
	}
	return details
}

// Merge reads the results that a file keeps, puts those of dir in the place of
// older ones, and writes the file anew. It keeps what is not in dir: so a page can
// be made of several runs, also of those of other checkouts.
func Merge(file, dir string, names []string) (map[string]Result, error) {
	kept := map[string]Result{}
	content, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		var list []Result
		if err := json.Unmarshal(content, &list); err != nil {
			return nil, fmt.Errorf("read the results %s: %w", file, err)
		}
		for _, r := range list {
			// A metric that is no more is forgotten.
			if slices.Contains(names, r.Name) {
				r.compare()
				kept[r.Name] = r
			}
		}
	}
	for _, name := range names {
		r, err := Read(dir, name)
		if err != nil {
			return nil, err
		}
		// Times are of one form, and compare as text.
		if r != nil && r.Time >= kept[name].Time {
			kept[name] = *r
		}
	}
	var list []Result
	for _, name := range names {
		if r, ok := kept[name]; ok {
			list = append(list, r.brief())
		}
	}
	if content, err = json.MarshalIndent(list, "", " "); err != nil {
		return nil, err
	}
	return kept, os.WriteFile(file, append(content, '\n'), 0o644)
}
