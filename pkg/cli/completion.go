package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func newCompletionCommand(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	cmd := &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that completes commands, flags and tenants in your shell",
		Example: examples(a.name, `
# bash
source <(%[1]s completion bash)

# zsh
source <(%[1]s completion zsh)

# fish
%[1]s completion fish | source

# PowerShell
%[1]s completion powershell | Out-String | Invoke-Expression`),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !contains(shells, args[0]) {
				return fmt.Errorf("name one shell: %s", quoteList(shells, "or"))
			}
			return nil
		},
		ValidArgs: shells,
	}
	cmd.RunE = a.run(func(_ context.Context, args []string) error {
		root := cmd.Root()
		switch args[0] {
		case "bash":
			return root.GenBashCompletionV2(a.Stdout, true)
		case "zsh":
			return root.GenZshCompletion(a.Stdout)
		case "fish":
			return root.GenFishCompletion(a.Stdout, true)
		}
		return root.GenPowerShellCompletionWithDesc(a.Stdout)
	})
	return cmd
}
