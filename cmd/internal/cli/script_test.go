package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lathe-ml/lathe/backends/cpuid"
	"github.com/lathe-ml/lathe/backends/ort"
	"github.com/lathe-ml/lathe/cmd/internal/ui"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/internal/shared"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"lathe": func() { os.Exit(Main(os.Args[1:], ui.System())) },
	})
}

// sharedDir is the folder of shared models and test cases, or "" if this
// machine has none.
func sharedDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("LATHE_SHARED")
	if dir == "" {
		dir = filepath.Join(shared.Root(t), "..", "shared")
	}
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// TestScripts runs each testdata/script/*.txtar with the real command line.
func TestScripts(t *testing.T) {
	root := shared.Root(t)
	shared := sharedDir(t)
	cache, _ := (&factory{}).cacheDir()
	lib, err := ort.Find("", cache)
	peer := err == nil
	if !peer {
		t.Logf("parts that need ONNX Runtime are left out: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join(root, "testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"model":    makeModel,
			"truncate": truncate,
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "shared":
				return shared != "", nil
			case "peer":
				return peer, nil
			case "full": // a device without space
				_, err := os.Stat("/dev/full")
				return err == nil, nil
			case "root":
				return os.Getuid() == 0, nil
			}
			if feature, ok := strings.CutPrefix(cond, "cpu:"); ok {
				return slices.Contains(cpuid.Here(), feature), nil
			}
			return false, nil
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("ROOT", root)
			// For scripts that take the PATH away.
			lathe, err := exec.LookPath("lathe")
			if err != nil {
				return err
			}
			env.Setenv("LATHE", lathe)
			env.Setenv("SHARED", shared)
			env.Setenv("LATHE_ORT", lib)
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, ".cache"))
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
	})
}

// exits CODE COMMAND ARGS… runs a command and checks its exact exit code,
// which testscript's own exec cannot do.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARGS…]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = exitCode(err)
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// makeModel FILE TEXT [OPSET] writes an ONNX file from a graph's text form.
func makeModel(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: model FILE TEXT [OPSET]")
	}
	opset := 13
	if len(args) > 2 {
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		opset = n
	}
	g, err := ir.Parse(ts.ReadFile(args[1]))
	ts.Check(err)
	ts.Check(onnxfile.New(g, int64(opset)).Write(ts.MkAbs(args[0]), onnxfile.WriteOptions{}))
}

// truncate FILE BYTES cuts a file off.
func truncate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: truncate FILE BYTES")
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}
