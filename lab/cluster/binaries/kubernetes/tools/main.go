// One program that is kwok or helm, by the name it is called by. What every version of Kubernetes here is used with.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
	helmcmd "helm.sh/helm/v4/pkg/cmd"
	"helm.sh/helm/v4/pkg/kube"
	"sigs.k8s.io/kwok/pkg/config"
	kwokcmd "sigs.k8s.io/kwok/pkg/kwok/cmd"
	"sigs.k8s.io/kwok/pkg/log"
	"sigs.k8s.io/kwok/pkg/utils/signals"
)

func main() {
	// Kubernetes' packages may add a `--version` of their own to the global flags, and cobra adds those to every command:
	// kwok, which has one too, would stop with "flag declared as non-bool".
	pflag.CommandLine = pflag.NewFlagSet(os.Args[0], pflag.ExitOnError)
	switch name := filepath.Base(os.Args[0]); name {
	case "kwok":
		if err := kwok(signals.SetupSignalContext()); err != nil {
			fmt.Fprintf(os.Stderr, "kwok: %v\n", err)
			os.Exit(1)
		}
	case "helm":
		helm()
	default:
		fmt.Fprintf(os.Stderr, "%s is not a tool of the test cluster: call it kwok or helm\n", name)
		os.Exit(2)
	}
}

// As cmd/kwok/main.go.
func kwok(ctx context.Context) error {
	flags := pflag.NewFlagSet("global", pflag.ContinueOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	flags.Usage = func() {}
	ctx, _ = log.InitFlags(ctx, flags)
	ctx, err := config.InitFlags(ctx, flags)
	if err != nil {
		return err
	}
	command := kwokcmd.NewCommand(ctx)
	command.PersistentFlags().AddFlagSet(flags)
	return command.ExecuteContext(ctx)
}

// As cmd/helm/helm.go.
func helm() {
	kube.ManagedFieldsManager = "helm"
	command, err := helmcmd.NewRootCmd(os.Stdout, os.Args[1:], helmcmd.SetupLogging)
	if err != nil {
		slog.Warn("command failed", slog.Any("error", err))
		os.Exit(1)
	}
	if err := command.Execute(); err != nil {
		var failure helmcmd.CommandError
		if errors.As(err, &failure) {
			os.Exit(failure.ExitCode)
		}
		os.Exit(1)
	}
}
