package ort

import (
	"os"
	"path/filepath"
	"runtime"

	"github.com/lathe-ml/lathe/compiler/fault"
)

// Version is the release that lathe is compared with, and the npm package that
// carries it.
const (
	Version = "1.30.0"
	Package = "onnxruntime-node@" + Version
)

// npmArch maps GOARCH to the folder name in the npm package.
var npmArch = map[string]string{"amd64": "x64", "arm64": "arm64"}

// Find gives the path of the ONNX Runtime library: the wanted path if there is
// one, else LATHE_ORT, else an npm package in this or an enclosing folder, else
// one that `make peer` put into the cache folder.
func Find(want, cacheDir string) (string, error) {
	for _, p := range []struct{ name, path string }{{"the given path", want}, {"LATHE_ORT", os.Getenv("LATHE_ORT")}} {
		if p.path == "" {
			continue
		}
		lib, ok := resolve(p.path)
		if !ok {
			return "", fault.New(fault.Toolchain, "no ONNX Runtime library at %s (%s)", p.path, p.name).Hint(installHint)
		}
		return lib, nil
	}
	for _, dir := range places(cacheDir) {
		if lib, ok := inPackage(dir); ok {
			return lib, nil
		}
	}
	return "", fault.New(fault.Toolchain, "ONNX Runtime's library was not found").Hint(installHint)
}

const installHint = "npm install --ignore-scripts " + Package + " in this folder, or point LATHE_ORT to libonnxruntime.so"

// resolve accepts the library itself or a folder that holds the npm package.
func resolve(path string) (string, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return "", false
	}
	if !info.IsDir() {
		return path, true
	}
	if lib, ok := inPackage(path); ok {
		return lib, true
	}
	return firstFile(path, libraryNames())
}

// places are the folders that may hold node_modules: this one, those around
// it, the cache.
func places(cacheDir string) []string {
	var dirs []string
	if d, err := os.Getwd(); err == nil {
		for {
			dirs = append(dirs, d)
			up := filepath.Dir(d)
			if up == d {
				break
			}
			d = up
		}
	}
	if cacheDir != "" {
		dirs = append(dirs, filepath.Join(cacheDir, "peer"))
	}
	if base, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(base, "lathe", "peer"))
	}
	return dirs
}

// inPackage looks for the library in dir's npm package.
func inPackage(dir string) (string, bool) {
	lib := filepath.Join(dir, "node_modules", "onnxruntime-node", "bin", "napi-v6", runtime.GOOS, npmArch[runtime.GOARCH])
	return firstFile(lib, libraryNames())
}

func libraryNames() []string {
	if runtime.GOOS == "darwin" {
		return []string{"libonnxruntime.dylib", "libonnxruntime.1.dylib", "libonnxruntime." + Version + ".dylib"}
	}
	return []string{"libonnxruntime.so", "libonnxruntime.so.1", "libonnxruntime.so." + Version}
}

func firstFile(dir string, names []string) (string, bool) {
	for _, n := range names {
		p := filepath.Join(dir, n)
		if info, err := os.Stat(p); err == nil && !info.IsDir() {
			return p, true
		}
	}
	return "", false
}
