package cli

import (
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/backends/cpu"
	"github.com/lathe-ml/lathe/backends/cpuid"
)

// device is one thing that an artifact can run on.
type device struct {
	Target   string   `json:"target"`
	Name     string   `json:"name"`
	Arch     string   `json:"arch"`
	Level    string   `json:"cpu,omitempty"` // what --cpu native stands for
	Cores    int      `json:"cores"`
	Features []string `json:"features"`
}

func newDevicesCmd(f *factory) *cobra.Command {
	return &cobra.Command{
		Use:     "devices",
		Short:   "List what artifacts can run on here",
		Example: "  lathe devices\n  lathe devices --json",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			host := hostCPU()
			portable := device{Target: "portable", Name: "pure Go", Arch: host.Arch, Cores: host.Cores, Features: []string{}}
			list := []device{host, portable}
			if f.json {
				return f.JSON(list)
			}
			t := f.Table("target", "name", ">cores", "cpu", "features")
			for _, d := range list {
				t.Row(d.Target, d.Name, itoa(d.Cores), d.Level, strings.Join(d.Features, " "))
			}
			t.Print()
			return nil
		},
	}
}

// hostCPU describes the processor that lathe runs on.
func hostCPU() device {
	return device{Target: "cpu", Name: cpuName(), Arch: runtime.GOARCH, Cores: runtime.NumCPU(), Features: cpuid.Here(), Level: cpu.Native()}
}

// cpuName is the marketing name where the system tells it.
func cpuName() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}
