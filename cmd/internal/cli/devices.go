package cli

import (
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/cpu"
)

// device is one thing that an artifact can run on.
type device struct {
	Target   string   `json:"target"`
	Name     string   `json:"name"`
	Arch     string   `json:"arch"`
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
			t := f.Table("target", "name", ">cores", "features")
			for _, d := range list {
				t.Row(d.Target, d.Name, itoa(d.Cores), strings.Join(d.Features, " "))
			}
			t.Print()
			return nil
		},
	}
}

// hostCPU describes the processor that lathe runs on.
func hostCPU() device {
	d := device{Target: "cpu", Name: cpuName(), Arch: runtime.GOARCH, Cores: runtime.NumCPU(), Features: []string{}}
	for _, x := range []struct {
		name string
		has  bool
	}{
		{"sse4.2", cpu.X86.HasSSE42}, {"avx", cpu.X86.HasAVX}, {"avx2", cpu.X86.HasAVX2}, {"fma", cpu.X86.HasFMA},
		{"avx512f", cpu.X86.HasAVX512F}, {"avx512bw", cpu.X86.HasAVX512BW}, {"avx512vl", cpu.X86.HasAVX512VL},
		{"avx512vnni", cpu.X86.HasAVX512VNNI}, {"avx512bf16", cpu.X86.HasAVX512BF16},
		{"amx-tile", cpu.X86.HasAMXTile}, {"amx-int8", cpu.X86.HasAMXInt8}, {"amx-bf16", cpu.X86.HasAMXBF16},
		{"asimd", cpu.ARM64.HasASIMD}, {"asimddp", cpu.ARM64.HasASIMDDP}, {"fphp", cpu.ARM64.HasFPHP}, {"sve", cpu.ARM64.HasSVE},
	} {
		if x.has {
			d.Features = append(d.Features, x.name)
		}
	}
	return d
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
