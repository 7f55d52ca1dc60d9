package migrate

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDocs: the page lists the fields without a counterpart as they are told.
func TestDocs(t *testing.T) {
	const file = "../../docs/migrate.md"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	renewed := page
	for _, peer := range Peers() {
		begin, end := []byte("<!-- "+peer.Name+": fields without a counterpart -->\n"), []byte("<!-- end -->\n")
		before, rest, ok := bytes.Cut(renewed, begin)
		_, after, closed := bytes.Cut(rest, end)
		if !ok || !closed {
			t.Fatalf("%s has no %q with an end", file, begin)
		}
		var table bytes.Buffer
		table.WriteString("| field | why, and what instead |\n|---|---|\n")
		for _, g := range peer.gaps {
			fmt.Fprintf(&table, "| `%s` | %s |\n", g.path, g.advice)
		}
		renewed = bytes.Join([][]byte{before, begin, table.Bytes(), end, after}, nil)
	}
	if f := flag.Lookup("update"); f != nil && f.Value.String() == "true" {
		if err := os.WriteFile(file, renewed, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(page), string(renewed)); diff != "" {
		t.Errorf("%s is behind (-it +as it should be; renew with -update):\n%s", file, diff)
	}
}
