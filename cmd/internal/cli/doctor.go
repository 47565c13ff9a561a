package cli

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lathe-ml/lathe/backends/ort"
	"github.com/lathe-ml/lathe/backends/toolchain"
	"github.com/lathe-ml/lathe/compiler/fault"
)

func itoa(n int) string { return strconv.Itoa(n) }

// finding is one line of the doctor's report.
type finding struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Found string `json:"found"`
	For   string `json:"for"`
	Fix   string `json:"fix,omitempty"`
}

// examinations are the doctor's checks, in the order of the report.
var examinations = []func(context.Context, *factory) finding{
	examineCompiler, examineCross, examineCPU, examineCache, examineTemp, examinePeer,
}

func newDoctorCmd(f *factory) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine can do, what is missing and how to get it",
		Long: `doctor looks for what lathe can use on this machine. Nothing that it finds
missing is an error: without a C compiler the portable target still runs every
model that lathe supports, more slowly.`,
		Example: "  lathe doctor\n  lathe doctor --json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all []finding
			for _, ex := range examinations {
				all = append(all, ex(cmd.Context(), f))
			}
			if f.json {
				return f.JSON(all)
			}
			t := f.Table("check", "state", "found", "needed for")
			for _, x := range all {
				state := "ok"
				if !x.OK {
					state = "missing"
				}
				t.Row(x.Check, state, x.Found, x.For)
			}
			t.Print()
			for _, x := range all {
				if !x.OK && x.Fix != "" {
					f.Infof("%s: %s", x.Check, x.Fix)
				}
			}
			return nil
		},
	}
}

// compilerNames are the C compilers that the cpu target can use, best first.
var compilerNames = []string{"gcc", "clang", "cc"}

func examineCompiler(ctx context.Context, _ *factory) finding {
	x := finding{Check: "C compiler", For: "the cpu target", Fix: "install gcc or clang (Debian: apt-get install gcc), or compile with --target portable"}
	var found []string
	for _, name := range compilerNames {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		out, err := exec.CommandContext(ctx, path, "--version").Output()
		cancel()
		if err != nil {
			continue
		}
		first, _, _ := strings.Cut(string(out), "\n")
		found = append(found, first)
	}
	if len(found) > 0 {
		x.OK, x.Found, x.Fix = true, strings.Join(found, "; "), ""
	}
	return x
}

// examineCross looks for a compiler for the other architecture.
func examineCross(context.Context, *factory) finding {
	arch, cpuName := "arm64", "aarch64"
	if runtime.GOARCH == "arm64" {
		arch, cpuName = "amd64", "x86-64-v3"
	}
	x := finding{Check: "C compiler for " + arch, For: "compile --cpu " + cpuName + " and the like"}
	cc, err := toolchain.FindFor(arch, "")
	if err != nil {
		x.Fix = fault.HintOf(err)
		return x
	}
	x.OK, x.Found = true, cc.Version
	return x
}

func examineCPU(context.Context, *factory) finding {
	d := hostCPU()
	return finding{Check: "CPU", OK: true, For: "the cpu target",
		Found: d.Name + ", " + itoa(d.Cores) + " cores, " + d.Level + ": " + strings.Join(d.Features, " ")}
}

func examineCache(_ context.Context, f *factory) finding {
	x := finding{Check: "cache folder", For: "fast recompiles", Fix: "choose another with --cache-dir or LATHE_CACHE"}
	dir, err := f.cacheDir()
	if err != nil {
		x.Found = err.Error()
		return x
	}
	return writable(x, dir)
}

func examineTemp(context.Context, *factory) finding {
	return writable(finding{Check: "temporary folder", For: "the C compiler", Fix: "set TMPDIR to a folder that can be written"}, os.TempDir())
}

// writable tries a folder, or the nearest one above it that exists, without
// leaving anything behind.
func writable(x finding, dir string) finding {
	probe := dir
	for {
		if _, err := os.Stat(probe); err == nil || filepath.Dir(probe) == probe {
			break
		}
		probe = filepath.Dir(probe)
	}
	tmp, err := os.CreateTemp(probe, ".lathe-doctor-*")
	if err != nil {
		x.Found = err.Error()
		return x
	}
	tmp.Close()
	os.Remove(tmp.Name())
	x.OK, x.Found, x.Fix = true, dir, ""
	return x
}

func examinePeer(_ context.Context, f *factory) finding {
	x := finding{Check: "ONNX Runtime", For: "bench --peer and verify --against peer",
		Fix: "npm install --ignore-scripts " + ort.Package + ", or point LATHE_ORT to libonnxruntime"}
	if runtime.GOOS == "windows" {
		x.Fix = "the peer is not available on Windows"
	}
	dir, _ := f.cacheDir()
	if lib, err := ort.Find("", dir); err == nil {
		x.OK, x.Found, x.Fix = true, lib, ""
	}
	return x
}
