package cli

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// maxName is the longest name of a tenant; the API refuses longer ones.
const maxName = 40

// validName is the form of a tenant's name; the API refuses others.
func validName(name string) bool {
	if len(name) == 0 || len(name) > maxName || name[0] < 'a' || name[0] > 'z' || name[len(name)-1] == '-' {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// checkName refuses what cannot be the name of a tenant, and says what could.
func checkName(name string) error {
	if name == api.RootTenant {
		return usagef("the name %q is the tree's own", name)
	}
	if validName(name) {
		return nil
	}
	reason := "it has only lower-case letters, digits and -, starts with a letter and ends with a letter or digit"
	if len(name) > maxName {
		reason = fmt.Sprintf("it has at most %d characters, and this has %d", maxName, len(name))
	}
	err := usagef("%q cannot be the name of a tenant: %s", name, reason)
	if similar := similarName(name); similar != "" {
		return hint(err, "Try %q.", similar)
	}
	return err
}

// similarName makes a valid name out of an invalid one; empty if nothing of it
// can be used.
func similarName(name string) string {
	similar := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-")
	similar = strings.Trim(similar, "-")
	if similar == "" {
		return ""
	}
	if similar[0] < 'a' || similar[0] > 'z' {
		similar = "t-" + similar
	}
	if len(similar) > maxName {
		similar = strings.TrimRight(similar[:maxName], "-")
	}
	return similar
}

// suggest returns up to three names that were probably meant, nearest first.
func suggest(name string, names []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	var candidates []candidate
	for _, other := range names {
		distance := editDistance(name, other)
		// A third of the letters wrong is a typing mistake; more is another name,
		// unless one is the beginning of the other.
		near := distance <= max(1, len(name)/3)
		if near || len(name) >= 3 && strings.HasPrefix(other, name) {
			candidates = append(candidates, candidate{other, distance})
		}
	}
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), strings.Compare(a.name, b.name))
	})
	var near []string
	for _, c := range candidates[:min(3, len(candidates))] {
		near = append(near, c.name)
	}
	return near
}

// editDistance counts the letters to insert, delete, replace or swap with their
// neighbour (optimal string alignment).
func editDistance(a, b string) int {
	previous, row := make([]int, len(b)+1), make([]int, len(b)+1)
	var before []int
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, previous, row = previous, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(previous[j]+1, row[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}

// quoteList writes a list as people do: "a", "b" or "c".
func quoteList(list []string, conjunction string) string {
	quoted := make([]string, len(list))
	for i, item := range list {
		quoted[i] = strconv.Quote(item)
	}
	if len(quoted) < 2 {
		return strings.Join(quoted, "")
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " " + conjunction + " " + quoted[last]
}
