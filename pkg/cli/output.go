package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/printers"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// output is the flag -o, with the formats that a command knows.
type output struct {
	format  string
	formats []string
}

func (o *output) addFlag(cmd *cobra.Command, flags *pflag.FlagSet, formats ...string) {
	o.formats = formats
	flags.StringVarP(&o.format, "output", "o", o.format, "output format: "+strings.Join(formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

func (o *output) validate() error {
	if o.format == "" || slices.Contains(o.formats, o.format) {
		return nil
	}
	return usagef("unknown output format %q: use %s", o.format, quoteList(o.formats, "or"))
}

// object prints one object as JSON, YAML or by its name.
func (o *output) object(w io.Writer, object runtime.Object) error {
	switch o.format {
	case "json":
		return (&printers.JSONPrinter{}).PrintObj(object, w)
	case "yaml":
		return (&printers.YAMLPrinter{}).PrintObj(object, w)
	case "name":
		return printNames(w, object)
	}
	return fmt.Errorf("unknown output format %q", o.format)
}

func printNames(w io.Writer, object runtime.Object) error {
	switch typed := object.(type) {
	case *api.Tenant:
		_, err := fmt.Fprintf(w, "tenant.%s/%s\n", api.GroupName, typed.Name)
		return err
	case *api.Template:
		_, err := fmt.Fprintf(w, "template.%s/%s\n", api.GroupName, typed.Name)
		return err
	case *api.TemplateList:
		for i := range typed.Items {
			if err := printNames(w, &typed.Items[i]); err != nil {
				return err
			}
		}
		return nil
	case *api.TenantList:
		for i := range typed.Items {
			if err := printNames(w, &typed.Items[i]); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("no name for %T", object)
}

// table prints rows under headings, in aligned columns.
func table(w io.Writer, headings []string, rows [][]string) error {
	return printTable(w, headings, rows, printers.PrintOptions{})
}

func tableWithoutHeadings(w io.Writer, headings []string, rows [][]string) error {
	return printTable(w, headings, rows, printers.PrintOptions{NoHeaders: true})
}

func printTable(w io.Writer, headings []string, rows [][]string, options printers.PrintOptions) error {
	t := &metav1.Table{}
	for _, heading := range headings {
		t.ColumnDefinitions = append(t.ColumnDefinitions, metav1.TableColumnDefinition{Name: heading, Type: "string"})
	}
	for _, row := range rows {
		cells := make([]any, len(row))
		for i, cell := range row {
			cells[i] = cell
		}
		t.Rows = append(t.Rows, metav1.TableRow{Cells: cells})
	}
	return printers.NewTablePrinter(options).PrintObj(t, w)
}
